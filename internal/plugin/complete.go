package plugin

import (
	"errors"

	"github.com/libnet-cni/libnet/internal/cni"
	"github.com/libnet-cni/libnet/internal/engine"
	"github.com/libnet-cni/libnet/internal/netconf"
)

// complete lays a call's configuration upon its template and the node's defaults: for ADD and
// STATUS as the files have them, for what is about things that were made as the network's record
// keeps them.
func (d driver) complete(call *cni.Call) error {
	switch call.Command {
	case "ADD", "STATUS":
		return d.fromFiles(call)
	case "CHECK":
		if done := d.fromRecord(call); done {
			return nil
		}
		return d.fromFiles(call)
	}
	if done := d.fromRecord(call); !done {
		_ = d.fromFiles(call) // what is to be removed may never have been recorded
	}
	return nil
}

// fromFiles takes what the files say, and that of a template whose file is gone from the record.
func (d driver) fromFiles(call *cni.Call) error {
	below, err := netconf.ReadBelow(netconf.LayersDir, call.Conf)
	if errors.Is(err, netconf.ErrNoTemplate) {
		name, _ := netconf.TemplateOf(call.Conf)
		of, _ := recorded(call)
		if kept := below.Without(of, name); kept != nil {
			call.Warn("configFrom: the file of template " + name + " is gone: what the network's record keeps of it counts")
			below, err = kept, nil
		}
	}
	if below == nil || err != nil {
		return err
	}
	return d.lay(call, below)
}

// fromRecord takes what the network's record keeps, which may be nothing; done is false if there
// is no record to go by.
func (d driver) fromRecord(call *cni.Call) (done bool) {
	below, is := recorded(call)
	return is && (below == nil || d.lay(call, below) == nil)
}

// recorded is what the network's record keeps, nil if that is nothing, and whether there is one.
func recorded(call *cni.Call) (below *netconf.Below, is bool) {
	data, is, err := engine.RecordedLayers(netconf.LooseStateDir(call.Conf), call.Network)
	if err == nil {
		below, err = netconf.Recorded(data)
	}
	return below, is && err == nil // it is read again, and named, where it is needed
}

func (d driver) lay(call *cni.Call, below *netconf.Below) error {
	c, err := below.Complete(d.keys, call.Conf)
	if err != nil {
		return err
	}
	call.Conf, call.Stdin, call.Layers, call.Locate = c.Conf, c.Text, c.Record(), c.Locate
	return nil
}
