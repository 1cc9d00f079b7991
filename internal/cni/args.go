package cni

import (
	"slices"
	"strings"

	"github.com/containernetworking/cni/pkg/types"
)

// Args are the pairs of CNI_ARGS.
type Args map[string]string

// knownArgs are the keys that may come without IgnoreUnknown.
var knownArgs = []string{
	"IgnoreUnknown", "IP", "GATEWAY", "MAC", "NAME",
	"K8S_POD_NAMESPACE", "K8S_POD_NAME", "K8S_POD_UID", "K8S_POD_INFRA_CONTAINER_ID",
}

// parseArgs reads "K=V;K2=V2". Unknown keys are an error unless IgnoreUnknown
// says otherwise (cni.dev conventions, CNI_ARGS).
func parseArgs(s string) (Args, error) {
	args := Args{}
	if s == "" {
		return args, nil
	}
	var unknown []string
	for pair := range strings.SplitSeq(s, ";") {
		key, value, ok := strings.Cut(pair, "=")
		if !ok || key == "" || strings.Contains(value, "=") {
			return nil, codef(types.ErrInvalidEnvironmentVariables, "CNI_ARGS: %q: want KEY=VALUE pairs separated by ';'", pair)
		}
		args[key] = value
		if !slices.Contains(knownArgs, key) {
			unknown = append(unknown, key)
		}
	}
	ignore := args["IgnoreUnknown"]
	if len(unknown) > 0 && ignore != "1" && !strings.EqualFold(ignore, "true") {
		return nil, codef(types.ErrInvalidEnvironmentVariables, "CNI_ARGS: %s: unknown; known are %s; IgnoreUnknown=1 lets others pass",
			strings.Join(unknown, ", "), strings.Join(knownArgs, ", "))
	}
	return args, nil
}

// Workload names the pod or container that the call is for, as it is known
// beyond one life of it; empty if it has no such name. Kubernetes and its
// runtimes send namespace and name of the pod, Podman the container's name in
// both. nerdctl sends the host name, which stands for nothing if it is the
// short container ID that nerdctl makes up.
func (c *Call) Workload() string {
	if c.Args["K8S_POD_NAME"] != "" {
		return c.Args["K8S_POD_NAMESPACE"] + "/" + c.Args["K8S_POD_NAME"]
	}
	if name := c.Args["NERDCTL_CNI_DHCP_HOSTNAME"]; !strings.HasPrefix(c.ContainerID, name) {
		return name
	}
	return ""
}
