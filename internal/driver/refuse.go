package driver

import (
	"fmt"
	"maps"
	"slices"

	"github.com/libnet-cni/libnet/internal/model"
)

// RefuseOptions refuses what a driver without options and addresses cannot have.
func RefuseOptions(n Network) error {
	for _, key := range slices.Sorted(maps.Keys(n.Options)) {
		return model.BadConfig(key, n.Options[key], "the driver "+n.Driver+" has no options")
	}
	if n.IPAM != nil {
		return model.BadConfig("ipam.type", n.IPAM["type"], "networks of the driver "+n.Driver+" have no addresses of their own")
	}
	return nil
}

// RefuseAsked refuses what a driver without interfaces cannot do for a container.
func RefuseAsked(a Attachment, driver string) error {
	for _, key := range slices.Sorted(maps.Keys(a.Asked)) {
		return model.BadConfig(key, fmt.Sprint(a.Asked[key]), "the driver "+driver+" makes no interface")
	}
	return nil
}
