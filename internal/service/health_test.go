package service

import (
	"errors"
	"testing"

	"github.com/libnet-cni/libnet/internal/firewall"
)

func TestSetHealth(t *testing.T) {
	tcp := Port{Protocol: firewall.TCP, Port: 80, Target: 8080}
	udp := Port{Protocol: firewall.UDP, Port: 53, Target: 5353}
	for _, tt := range []struct {
		text  string
		ports []Port
		want  string // empty: ErrInvalid
	}{
		{"", nil, "none"},
		{"none", nil, "none"},
		{"tcp", []Port{udp, tcp}, "tcp:8080,interval=5s"},
		{"tcp", []Port{udp}, ""},
		{"tcp:9000", []Port{udp}, "tcp:9000,interval=5s"},
		{"tcp:9000,interval=250s", nil, "tcp:9000,interval=4m10s"},
		{"tcp,interval=1s", []Port{tcp}, "tcp:8080,interval=1s"},
		{"tcp:9000,interval=999ms", nil, ""},
		{"tcp:9000,interval=2h", nil, ""},
		{"tcp:9000,every=5s", nil, ""},
		{"tcp:0", nil, ""},
		{"tcp:65536", nil, ""},
		{"http", []Port{tcp}, ""},
		{"tcp:", []Port{tcp}, ""},
		{"TCP", []Port{tcp}, ""},
	} {
		s := Service{Ports: tt.ports}
		err := s.SetHealth(tt.text)
		if tt.want == "" && !errors.Is(err, ErrInvalid) || tt.want != "" && (err != nil || s.Health.String() != tt.want) {
			t.Errorf("%q: %s, %v; want %q", tt.text, s.Health, err, tt.want)
		}
		again := Service{}
		if err := again.SetHealth(s.Health.String()); err != nil || again.Health != s.Health {
			t.Errorf("%q is read back as %s, %v", s.Health, again.Health, err)
		}
	}
}

// Backends that are well get connections; if none of those that have a weight is, all do.
func TestServing(t *testing.T) {
	well, ill := Backend{ContainerID: "well", Well: true}, Backend{ContainerID: "ill"}
	far := Backend{ContainerID: "far", Node: "h2", Well: true}
	for _, tt := range []struct {
		name      string
		check     bool
		drained   string
		some, all []Backend
		want      int
		fail      bool
	}{
		{"no check", false, "", []Backend{well, ill}, []Backend{well, ill}, 2, false},
		{"one is ill", true, "", []Backend{well, ill}, []Backend{well, ill}, 1, false},
		{"all are ill", true, "", []Backend{ill}, []Backend{ill}, 1, true},
		{"all of this host are ill", true, "", []Backend{ill}, []Backend{ill, far}, 0, false},
		{"the other one is drained", true, "well", []Backend{well, ill}, []Backend{well, ill}, 2, true},
		{"none at all", true, "", nil, nil, 0, false},
	} {
		s := Service{Weights: map[string]int{tt.drained: 0}}
		if tt.check {
			s.Health = Health{8080, defaultEvery}
		}
		if got := s.Serving(tt.some, tt.all); len(got) != tt.want || s.AllFail(tt.all) != tt.fail {
			t.Errorf("%s: %v, all fail %v; want %d, %v", tt.name, got, s.AllFail(tt.all), tt.want, tt.fail)
		}
	}
}
