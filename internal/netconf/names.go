package netconf

import (
	"fmt"
	"slices"
	"strings"

	"github.com/libnet-cni/libnet/internal/jsonr"
	"github.com/libnet-cni/libnet/internal/model"
)

// readNames returns the names that were chosen for the container on a network with "names";
// nil if the network has none. They come from everything that knows one, the container's own
// name first: CNI_ARGS NAME, the pod's, args.cni.names, the host name of nerdctl, the aliases.
func readNames(v jsonr.Value, s Source, in sections) (*model.Names, error) {
	network, on := readNamed(v)
	chosen := []struct {
		key   string
		names []string
	}{
		{"CNI_ARGS NAME", given(s.Args["NAME"])},
		{"CNI_ARGS K8S_POD_NAME", podNames(s.Args, network.Domain)},
		{in.args[argNames].Place(), in.args[argNames].Strings()},
		{"CNI_ARGS NERDCTL_CNI_DHCP_HOSTNAME", given(s.Args["NERDCTL_CNI_DHCP_HOSTNAME"])},
		{in.runtime[capAliases].Place(), readAliases(in.runtime[capAliases], s.Network)},
	}
	if err := s.Conf.Err(); err != nil || !on {
		return nil, err
	}
	n := &network
	for _, from := range chosen {
		for _, name := range from.names {
			if !model.ValidDNSName(name) {
				return nil, badKey(from.key, fmt.Sprintf("%q", name), model.WantDNSName)
			}
		}
		n.Own = append(n.Own, from.names...)
	}
	return n, nil
}

// readNamed reads true, or an object with the domain and what answers.
func readNamed(v jsonr.Value) (n model.Names, on bool) {
	n.Domain, n.Responder = model.DefaultDomain, model.Responders()[0]
	if !v.IsObject() {
		v.Bool(&on)
		return n, on
	}
	in := inside(v, namesTable)
	in[namesDomain].String(&n.Domain)
	if !model.ValidDNSName(n.Domain) {
		in[namesDomain].Refuse("a domain: " + model.WantDNSName)
	}
	n.Responder = oneOf(in[namesResponder], model.Responders()...)
	return n, true
}

func given(name string) []string {
	if name == "" {
		return nil
	}
	return []string{name}
}

// podNames returns the pod's name, alone and with its namespace. Kubernetes lets a pod be
// called "www.example.com" with the right to make one in a namespace: what has dots stands
// below the domain only, or the pod would answer for names of the cluster and of the world.
// It also lets a name have labels that DNS does not: no reason to refuse the pod. Podman
// sends the container's name in both, which only root gives.
func podNames(args map[string]string, domain string) []string {
	pod, namespace := args["K8S_POD_NAME"], args["K8S_POD_NAMESPACE"]
	if pod == "" || namespace == "" || namespace == pod {
		return given(pod)
	}
	all := []string{pod, pod + "." + namespace}
	if strings.Contains(pod, ".") {
		all = []string{pod + "." + domain, pod + "." + namespace + "." + domain}
	}
	return slices.DeleteFunc(all, func(name string) bool { return !model.ValidDNSName(name) })
}

// readAliases reads a list, or an object with one for each network.
func readAliases(v jsonr.Value, network string) []string {
	if v.IsObject() {
		return v.Object().At(network).Strings()
	}
	return v.Strings()
}
