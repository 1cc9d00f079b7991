package plugin

import (
	"fmt"
	"strings"

	"github.com/libnet-cni/libnet/internal/cni"
	"github.com/libnet-cni/libnet/internal/model"
)

// readNames returns the names of the container on a network with "names"; nil if the
// network has none. They come from whoever knows one, the container's own name first:
// CNI_ARGS NAME, the pod's, args.cni.names, the host name of nerdctl, and the aliases.
func readNames(call *cni.Call) (*model.Names, error) {
	domain, on := readDomain(call.Conf)
	if err := call.Conf.Err(); err != nil || !on {
		return nil, err
	}
	var all []string
	add := func(key string, names ...string) error {
		for _, name := range names {
			if !model.ValidDNSName(name) {
				return badKey(key, fmt.Sprintf("%q", name), model.WantDNSName)
			}
		}
		all = append(all, names...)
		return nil
	}
	for _, from := range []struct {
		key   string
		names []string
	}{
		{"CNI_ARGS NAME", given(call.Args["NAME"])},
		{"CNI_ARGS K8S_POD_NAME", podNames(call.Args)},
		{"args.cni.names", call.Conf.Object("args").Object("cni").Strings("names")},
		{"CNI_ARGS NERDCTL_CNI_DHCP_HOSTNAME", given(call.Args["NERDCTL_CNI_DHCP_HOSTNAME"])},
		{"runtimeConfig.aliases", readAliases(call)},
	} {
		if err := add(from.key, from.names...); err != nil {
			return nil, err
		}
	}
	if err := call.Conf.Err(); err != nil {
		return nil, err
	}
	return model.NamesOf(all, call.ContainerID, domain), nil
}

// readDomain reads "names": true, or an object with the domain.
func readDomain(o *cni.Object) (domain string, on bool) {
	const key = "names"
	domain = model.DefaultDomain
	raw := o.Raw(key)
	switch {
	case len(raw) == 0:
		return "", false
	case raw[0] != '{':
		o.Bool(key, &on)
		return domain, on
	}
	of := o.Object(key)
	of.String("domain", &domain)
	if !model.ValidDNSName(domain) {
		of.Refuse("domain", model.WantDNSName)
	}
	return domain, true
}

func given(name string) []string {
	if name == "" {
		return nil
	}
	return []string{name}
}

// podNames returns the pod's name, alone and with its namespace. Podman sends the
// container's name in both.
func podNames(args cni.Args) []string {
	pod, namespace := args["K8S_POD_NAME"], args["K8S_POD_NAMESPACE"]
	if pod == "" || namespace == "" || namespace == pod {
		return given(pod)
	}
	return []string{pod, pod + "." + namespace}
}

// readAliases reads the capability: a list, or one for each network.
func readAliases(call *cni.Call) []string {
	const key = "aliases"
	runtime := call.Conf.Object("runtimeConfig")
	if raw := string(runtime.Raw(key)); strings.HasPrefix(raw, "{") {
		return runtime.Object(key).Strings(call.Network)
	}
	return runtime.Strings(key)
}
