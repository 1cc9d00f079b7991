package kernel

// Tunnels makes, verifies and removes VXLAN devices and their entries in the
// namespace of its rtnetlink, which must be that of the calling thread.
type Tunnels struct{ conn *conn }

// NewTunnels returns the Tunnels that c leads to.
func NewTunnels(c *conn) *Tunnels { return &Tunnels{c} }
