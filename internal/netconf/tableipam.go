package netconf

// The keys of the ipam section. withRanges have range sets; overlay-ln has the host's block.
const (
	ipamType = iota
	ipamRanges
	ipamSubnet
	ipamRangeStart
	ipamRangeEnd
	ipamGateway
	ipamRoutes
	ipamDataDir
	ipamResolvConf
	ipamExclude
	ipamAuxAddresses
	ipamStrategy
	ipamSticky
	ipamCooldown
	ipamRebootPolicy
	ipamWarnAt
	ipamStrict
	ipamCount

	pools      = networks | IPAM
	withRanges = Bridge | IPAM
)

var ipamTable = [ipamCount]Key{
	ipamType: {Name: "type", Of: pools, From: fromCNI, Type: "string", Cleanup: true,
		Does: "`\"ipam-ln\"`, or another plugin's name."},
	ipamRanges: {Name: "ranges", Of: withRanges, From: fromHostLocal, Type: "list of range sets", Inside: rangeTable[:],
		Does: "A container gets one address of each set. A set is a list of ranges of one family: `[[{\"subnet\": \"10.1.0.0/24\"}], [{\"subnet\": \"fd01::/64\"}]]`."},
	ipamSubnet: {Name: "subnet", Of: withRanges, From: fromHostLocal, Type: "prefix",
		Does: "With the next three one range, the older form; it comes before `ranges`."},
	ipamRangeStart: {Name: "rangeStart", Of: withRanges, From: fromHostLocal, Type: "address", Does: "As in `ranges`."},
	ipamRangeEnd:   {Name: "rangeEnd", Of: withRanges, From: fromHostLocal, Type: "address", Does: "As in `ranges`."},
	ipamGateway:    {Name: "gateway", Of: withRanges, From: fromHostLocal, Type: "address", Does: "As in `ranges`."},
	ipamRoutes: {Name: "routes", Of: pools, From: fromHostLocal, Type: "list of objects", Inside: routeTable[:],
		Does: "`[{\"dst\": \"10.2.0.0/16\", \"gw\": \"10.1.0.9\"}]`. bridge-ln takes the gateway of the address where `gw` is missing."},
	ipamDataDir: {Name: "dataDir", Of: pools, From: fromHostLocal, Type: "string", Default: `"/var/lib/cni/networks"`, Cleanup: true,
		Does: "Directory of all pools."},
	ipamResolvConf: {Name: "resolvConf", Of: pools, From: fromHostLocal, Type: "string",
		Does: "A file as resolv.conf(5), for the `dns` of the result."},
	ipamExclude: {Name: "exclude", Of: pools, Type: "list of addresses and prefixes",
		Does: "These are not given unless requested: `[\"10.1.0.5\", \"10.1.0.64/26\"]`."},
	ipamAuxAddresses: {Name: "auxAddresses", Of: pools, Type: "object of addresses",
		Does: "Addresses of the subnets that belong to something else, by name; they are never given: `{\"nas\": \"10.1.0.9\"}`."},
	ipamStrategy: {Name: "strategy", Of: pools, Type: "string", Default: `"next"`,
		Does: "Which free address is given: `\"next\"` after the one given last; the `\"lowest\"`; a `\"random\"` one; by `\"hash\"`, one that follows from the workload's name, or else from container ID and interface."},
	ipamSticky: {Name: "sticky", Of: pools, Type: "boolean", Default: "false",
		Does: "A [workload](../plugins/ipam-ln/README.md#how-it-gives) gets the address it had last, if that is free."},
	ipamCooldown: {Name: "cooldown", Of: pools, Type: "number", Default: "0", Cleanup: true,
		Does: "Seconds, at most a year, for which an address that was taken back is given only to a container that requests it, or had it with `sticky`."},
	ipamRebootPolicy: {Name: "rebootPolicy", Of: pools, Type: "string", Default: `"release"`, Cleanup: true,
		Does: "`\"release\"`: the first ADD of a boot voids the leases of earlier boots. `\"keep\"`: leases outlive reboots; ADD then syncs them to disk."},
	ipamWarnAt: {Name: "warnAt", Of: pools, Type: "number", Default: "0",
		Does: "Percentage of a range set, 1 to 100, from which on STATUS prints a line on stderr that it is nearly full; `0`: only when it is full. It is no error, and neither is a full pool."},
	ipamStrict: {Name: "strict", Of: pools, Type: "boolean", Default: "false",
		Does: "`strict` for the keys of `ipam` alone, behind any plugin."},
}

const (
	rangeSubnet = iota
	rangeStart
	rangeEnd
	rangeGateway
	rangeCount
)

var rangeTable = [rangeCount]Key{
	rangeSubnet: {Name: "subnet", Of: withRanges, From: fromHostLocal, Type: "prefix",
		Does: "Prefix without host bits, required; or, ours, `\"auto\"`, `\"auto6\"`, `\"auto/24\"`, `\"auto6/64\"`: the lowest free subnet of the host's [address pools](../plugins/ipam-ln/README.md#address-pools)."},
	rangeStart: {Name: "rangeStart", Of: withRanges, From: fromHostLocal, Type: "address", Default: "the first address after the network's",
		Does: "First address to give; the network's own is never given."},
	rangeEnd: {Name: "rangeEnd", Of: withRanges, From: fromHostLocal, Type: "address", Default: "the last address, in IPv4 the one before the broadcast address",
		Does: "Last address to give; the broadcast address is never given, though `host-local` gives it."},
	rangeGateway: {Name: "gateway", Of: withRanges, From: fromHostLocal, Type: "address", Default: "the first address after the network's",
		Does: "Is never given; bridge-ln puts it on the bridge."},
}

const (
	routeDst = iota
	routeGW
	routeMTU
	routeAdvMSS
	routePriority
	routeTableKey
	routeScope
	routeCount
)

var routeTable = [routeCount]Key{
	routeDst:      {Name: "dst", Of: pools, From: fromCNI, Type: "prefix", Does: "Where the route leads. Required."},
	routeGW:       {Name: "gw", Of: pools, From: fromCNI, Type: "address", Does: "The next hop."},
	routeMTU:      {Name: "mtu", Of: pools, From: fromCNI, Type: "number", Does: "MTU of the route, in bytes."},
	routeAdvMSS:   {Name: "advmss", Of: pools, From: fromCNI, Type: "number", Does: "The MSS that TCP advertises, in bytes."},
	routePriority: {Name: "priority", Of: pools, From: fromCNI, Type: "number", Does: "Its metric."},
	routeTableKey: {Name: "table", Of: pools, From: fromCNI, Type: "number", Does: "The routing table."},
	routeScope:    {Name: "scope", Of: pools, From: fromCNI, Type: "number", Does: "Its scope."},
}
