// Package naming has the kernel answer queries for the names of attachments, by their records:
// the responder is in internal/responder. It chooses where a network leaves it open, and finds
// names that no record explains.
package naming
