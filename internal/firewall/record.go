package firewall

// Recorded is what rules in place tell of whom they are for, by owner in the
// form of Key. To Apply one of them again would change nothing.
type Recorded struct {
	Networks  map[string]Network
	Endpoints map[string]Endpoint
	// Conditioned are owners of ports with conditions, which are not among the
	// Endpoints: the words are gone once nft has read them.
	Conditioned []string
}
