package plugin

import (
	"cmp"
	"os"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/libnet-cni/libnet/internal/cni"
	"github.com/libnet-cni/libnet/internal/engine"
	"github.com/libnet-cni/libnet/internal/netconf"
	"github.com/libnet-cni/libnet/internal/report"
)

// Observe has a plugin tell of its calls, in the log of the configuration and to ln-agent. Where
// there is neither it costs one call of access.
func Observe(p netconf.Plugin, version string) func(*cni.Call) func(*types.Error) {
	return func(call *cni.Call) func(*types.Error) {
		log := netconf.LooseLog(call.Conf)
		socket := report.Socket(cmp.Or(netconf.LooseStateDir(call.Conf), engine.DefaultStateDir))
		listened := report.Listened(socket)
		if log.File == "" && !listened {
			return nil
		}
		c := &report.Call{
			Plugin: p.String(), Version: version, Command: call.Command, Network: call.Network, ContainerID: call.ContainerID, IfName: call.IfName,
			Parent: call.Parent, Steps: report.NewSteps(call.Began), Conf: call.Stdin, Netns: call.Netns, Args: os.Getenv("CNI_ARGS"),
		}
		call.Steps = c.Steps
		warn := call.Warn
		call.Warn = func(line string) {
			c.Warnings = append(c.Warnings, line)
			warn(line)
		}
		return func(failed *types.Error) {
			if failed != nil {
				c.Code, c.Error = failed.Code, failed.Msg
			}
			if listened {
				c.Send(socket)
			}
			if log.File == "" {
				return
			}
			if err := c.Log(log.File, log.Level); err != nil && call.Command == "STATUS" { // of others nothing else fails by it
				warn("log: " + err.Error())
			}
		}
	}
}
