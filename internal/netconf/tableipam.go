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

	pools      = networks | IPAM
	withRanges = Bridge | IPAM
)

var ipamTable = []Key{
	ipamType:         {Name: "type", Of: pools, CNI: true, Cleanup: true},
	ipamRanges:       {Name: "ranges", Of: withRanges, Inside: rangeTable},
	ipamSubnet:       {Name: "subnet", Of: withRanges},
	ipamRangeStart:   {Name: "rangeStart", Of: withRanges},
	ipamRangeEnd:     {Name: "rangeEnd", Of: withRanges},
	ipamGateway:      {Name: "gateway", Of: withRanges},
	ipamRoutes:       {Name: "routes", Of: pools, Inside: routeTable},
	ipamDataDir:      {Name: "dataDir", Of: pools, Cleanup: true},
	ipamResolvConf:   {Name: "resolvConf", Of: pools},
	ipamExclude:      {Name: "exclude", Of: pools},
	ipamAuxAddresses: {Name: "auxAddresses", Of: pools},
	ipamStrategy:     {Name: "strategy", Of: pools},
	ipamSticky:       {Name: "sticky", Of: pools},
	ipamCooldown:     {Name: "cooldown", Of: pools, Cleanup: true},
	ipamRebootPolicy: {Name: "rebootPolicy", Of: pools, Cleanup: true},
	ipamWarnAt:       {Name: "warnAt", Of: pools},
	ipamStrict:       {Name: "strict", Of: pools},
}

const (
	rangeSubnet = iota
	rangeStart
	rangeEnd
	rangeGateway
)

var rangeTable = []Key{
	rangeSubnet:  {Name: "subnet", Of: withRanges},
	rangeStart:   {Name: "rangeStart", Of: withRanges},
	rangeEnd:     {Name: "rangeEnd", Of: withRanges},
	rangeGateway: {Name: "gateway", Of: withRanges},
}

const (
	routeDst = iota
	routeGW
	routeMTU
	routeAdvMSS
	routePriority
	routeTableKey
	routeScope
)

var routeTable = []Key{
	routeDst:      {Name: "dst", Of: pools, CNI: true},
	routeGW:       {Name: "gw", Of: pools, CNI: true},
	routeMTU:      {Name: "mtu", Of: pools, CNI: true},
	routeAdvMSS:   {Name: "advmss", Of: pools, CNI: true},
	routePriority: {Name: "priority", Of: pools, CNI: true},
	routeTableKey: {Name: "table", Of: pools, CNI: true},
	routeScope:    {Name: "scope", Of: pools, CNI: true},
}
