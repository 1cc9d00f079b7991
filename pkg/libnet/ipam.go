package libnet

import (
	"context"
	"encoding/json"
	"net/netip"

	"github.com/libnet-cni/libnet/internal/address"
	"github.com/libnet-cni/libnet/internal/driver"
	"github.com/libnet-cni/libnet/internal/driver/cniplugin"
	"github.com/libnet-cni/libnet/internal/engine"
	"github.com/libnet-cni/libnet/internal/life"
	"github.com/libnet-cni/libnet/internal/model"
)

// pluginIPAM has a CNI plugin give the addresses of a network that the engine makes.
type pluginIPAM struct {
	d    *cniplugin.Driver
	kind string
	conf json.RawMessage
}

var _ address.IPAM = (*pluginIPAM)(nil)

// noNetns is the path that a plugin is told before the endpoint has a sandbox: CNI asks
// for one, and what only gives addresses does not look there.
const noNetns = "/run/netns/not-joined-yet"

// ofEngine is a network that the engine made, with the plugin that gives its addresses.
// Without that plugin what it gave cannot be taken back, and the engine says so.
func (c *Controller) ofEngine(n *engine.Network) *Network {
	return &Network{c: c, engine: n.FromConf(func(kind string, conf json.RawMessage) address.IPAM {
		if d := cniplugin.Find(c.path, kind); d != nil {
			return &pluginIPAM{d, kind, conf}
		}
		return nil
	})}
}

// newPluginIPAM makes the plugin's configuration of its section "ipam".
func (c *Controller) newPluginIPAM(ctx context.Context, network, kind string, section map[string]any) (*pluginIPAM, error) {
	p := &pluginIPAM{d: cniplugin.Find(c.path, kind), kind: kind}
	err := c.e.Do(func() error {
		n, err := p.d.Define(ctx, driver.Network{Name: network, Driver: kind, IPAM: section})
		p.conf = n.Conf
		return err
	})
	return p, err
}

func (p *pluginIPAM) attachment(id model.ID) driver.Attachment {
	return driver.Attachment{ContainerID: id.ContainerID, IfName: id.IfName, Netns: noNetns, Conf: p.conf}
}

func (p *pluginIPAM) Type() string { return p.kind }

func (p *pluginIPAM) Apply(ctx context.Context, claim address.Claim) (model.Addressing, error) {
	a := p.attachment(claim.ID)
	if claim.Netns != "" {
		a.Netns = claim.Netns
	}
	if len(claim.Addresses) > 0 {
		var ips []string
		for _, addr := range claim.Addresses {
			ips = append(ips, addr.String())
		}
		a.Asked = driver.Asked{"ips": ips}
		var err error
		if a.Conf, err = driver.WithAsked(p.conf, a.Asked); err != nil {
			return model.Addressing{}, err
		}
	}
	got, err := p.d.Attach(ctx, a)
	return got.Addressing, err
}

func (p *pluginIPAM) Verify(ctx context.Context, id model.ID, addrs []netip.Addr) error {
	a := p.attachment(id)
	ips := []map[string]string{}
	for _, addr := range addrs {
		ips = append(ips, map[string]string{"address": netip.PrefixFrom(addr, addr.BitLen()).String()})
	}
	var conf struct{ CNIVersion string }
	err := json.Unmarshal(p.conf, &conf)
	if err == nil {
		a.Result, err = json.Marshal(map[string]any{"cniVersion": conf.CNIVersion, "ips": ips})
	}
	if err != nil {
		return err
	}
	return p.d.Verify(ctx, a)
}

func (p *pluginIPAM) Remove(ctx context.Context, id model.ID) error {
	return p.d.Detach(ctx, p.attachment(id))
}

// Collect does nothing: each endpoint's addresses go with it, and the addresses that an
// ADD gets meanwhile cannot be told from those of no endpoint.
func (p *pluginIPAM) Collect(context.Context, func(life.Holder) bool) error { return nil }

func (p *pluginIPAM) Status(ctx context.Context) error {
	return p.d.Status(ctx, driver.Network{Conf: p.conf})
}
