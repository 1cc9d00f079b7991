package kernel

// Filter has a program of tc look at what comes in by a link; see netlink.Conn.
func (h *Handle) Filter(index, program int, name string) error {
	return h.conn.Filter(index, program, name)
}

// Filtered says whether a filter of that name does.
func (h *Handle) Filtered(index int, name string) (bool, error) { return h.conn.Filtered(index, name) }
