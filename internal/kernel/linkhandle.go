package kernel

// Links makes, verifies and removes bridges and attachments in the namespace of
// its rtnetlink, which must be that of the calling thread.
type Links struct {
	conn *conn
	host *Host
}

// NewLinks returns the Links of host, by c.
func NewLinks(c *conn, host *Host) *Links { return &Links{c, host} }
