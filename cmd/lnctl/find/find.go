// Package find finds containers by what a person writes for them.
package find

import (
	"fmt"
	"slices"
	"strings"

	"github.com/libnet-cni/libnet/internal/state"
)

// Container returns the attachments of the container of that ID, or of the only one whose ID
// begins so, or of the only one that has the name on a network with names. Those that have
// joined no network namespace are left out.
func Container(records []state.Endpoint, id string) ([]state.Endpoint, error) {
	joined := func(is func(state.Endpoint) bool) []state.Endpoint {
		return slices.DeleteFunc(slices.Clone(records), func(r state.Endpoint) bool { return r.Netns == "" || !is(r) })
	}
	for _, is := range []func(state.Endpoint) bool{
		func(r state.Endpoint) bool { return r.ContainerID == id },
		func(r state.Endpoint) bool { return id != "" && strings.HasPrefix(r.ContainerID, id) },
		func(r state.Endpoint) bool { return r.Names != nil && slices.Contains(r.Names.Own, id) },
	} {
		found := joined(is)
		if slices.ContainsFunc(found, func(r state.Endpoint) bool { return r.ContainerID != found[0].ContainerID }) {
			return nil, fmt.Errorf("%q: more than one container begins so, or has that name: want an ID", id)
		}
		if len(found) > 0 {
			return joined(func(r state.Endpoint) bool { return r.ContainerID == found[0].ContainerID }), nil
		}
	}
	return nil, fmt.Errorf("%q: no container begins so, or has that name; lnctl endpoint ls lists them", id)
}
