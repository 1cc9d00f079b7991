package firewall

// Recorded has the networks and endpoints that rules in place were made for, by
// owner in the form of Key. To Apply one of them again would change nothing.
type Recorded struct {
	Networks  map[string]Network
	Endpoints map[string]Endpoint
	// Conditioned are owners of ports with conditions, which are not among the
	// Endpoints: the words are gone once nft has read them.
	Conditioned []string
}
