package service

// Shared is a service of a network that spans hosts, as the registry of its hosts has it.
type Shared struct {
	Service
	// Homes are the hosts of the containers in Weights, by ID: each removes those that are
	// gone.
	Homes map[string]string `json:",omitempty"`
	// Revision of the registry's entry; 0: there is none.
	Revision int64
}

// Request is what lnctl asks the ln-agent of its host for: to make a service, to read it, to
// put a changed definition in the place of the one at its Revision, or to remove it. The last
// three need no more of it than Network and Name, but for the definition to put.
type Request struct {
	Shared
	// Auto: the service gets free addresses of the network, not those in VIPs.
	Auto bool
}

// The kinds of Request.
const (
	DoCreate = "service-create"
	DoRead   = "service-read"
	DoPut    = "service-put"
	DoRemove = "service-remove"
)
