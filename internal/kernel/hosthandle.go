package kernel

// Host is what the host has in the namespace of its rtnetlink: routes, addresses,
// ports and sysctls. Sysctls are those of the calling thread's namespace, which
// must be the same.
type Host struct{ conn *conn }

// NewHost returns the Host that c leads to.
func NewHost(c *conn) *Host { return &Host{c} }
