package agent

import (
	"bufio"
	"log/slog"
	"net"
	"strings"
	"testing"
)

// An agent whose networks are those of Kubernetes refuses a service, and says how to get one.
func TestServicesAreThoseOfKubernetes(t *testing.T) {
	for _, do := range []string{"service-create", "service-read", "service-put", "service-remove"} {
		ours, theirs := net.Pipe()
		a := &Agent{log: slog.New(slog.DiscardHandler)}
		go a.control(t.Context(), theirs)
		if _, err := ours.Write([]byte(`{"do":"` + do + `","service":{"Network":"pods","Name":"web"}}` + "\n")); err != nil {
			t.Fatal(err)
		}
		line, err := bufio.NewReader(ours).ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"Kubernetes", "kubectl expose", "kube-proxy"} {
			if !strings.Contains(line, want) {
				t.Errorf("%s: %s does not say %q", do, line, want)
			}
		}
		_ = ours.Close()
	}
}
