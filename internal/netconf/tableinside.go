package netconf

const (
	modeIPv4 = iota
	modeIPv6
)

var modeTable = []Key{
	modeIPv4: {Name: "ipv4", Of: networks},
	modeIPv6: {Name: "ipv6", Of: networks},
}

const (
	trunkID = iota
	trunkMinID
	trunkMaxID
)

var trunkTable = []Key{
	trunkID:    {Name: "id", Of: networks},
	trunkMinID: {Name: "minID", Of: networks},
	trunkMaxID: {Name: "maxID", Of: networks},
}

const (
	nodeAddress = iota
	nodeSubnet
	nodePublicKey
)

var nodeTable = []Key{
	nodeAddress:   {Name: "address", Of: Overlay},
	nodeSubnet:    {Name: "subnet", Of: Overlay},
	nodePublicKey: {Name: "publicKey", Of: Overlay},
}

const (
	sizeIPv4 = iota
	sizeIPv6
)

var sizeTable = []Key{
	sizeIPv4: {Name: "ipv4", Of: Overlay},
	sizeIPv6: {Name: "ipv6", Of: Overlay},
}

const (
	dnsNameservers = iota
	dnsDomain
	dnsSearch
	dnsOptions
)

var dnsTable = []Key{
	dnsNameservers: {Name: "nameservers", Of: networks, CNI: true},
	dnsDomain:      {Name: "domain", Of: networks, CNI: true},
	dnsSearch:      {Name: "search", Of: networks, CNI: true},
	dnsOptions:     {Name: "options", Of: networks, CNI: true},
}

const (
	namesDomain = iota
	namesResponder
)

var namesTable = []Key{
	namesDomain:    {Name: "domain", Of: networks},
	namesResponder: {Name: "responder", Of: networks},
}

// The keys of runtimeConfig, which are capabilities.
const (
	capPortMappings = iota
	capIPRanges
	capIPs
	capMAC
	capGwPriority
	capBandwidth
	capAliases
)

var runtimeTable = []Key{
	capPortMappings: {Name: "portMappings", Of: attachers, Inside: portTable},
	capIPRanges:     {Name: "ipRanges", Of: Bridge | IPAM, Inside: rangeTable},
	capIPs:          {Name: "ips", Of: networks | IPAM},
	capMAC:          {Name: "mac", Of: networks},
	capGwPriority:   {Name: "gwPriority", Of: networks},
	capBandwidth:    {Name: "bandwidth", Of: networks, CNI: true},
	capAliases:      {Name: "aliases", Of: networks, CNI: true},
}

// capabilitiesTable has the names of runtimeTable.
var capabilitiesTable = []Key{
	capPortMappings: {Name: "portMappings", Of: attachers},
	capIPRanges:     {Name: "ipRanges", Of: Bridge | IPAM},
	capIPs:          {Name: "ips", Of: networks | IPAM},
	capMAC:          {Name: "mac", Of: networks},
	capGwPriority:   {Name: "gwPriority", Of: networks},
	capBandwidth:    {Name: "bandwidth", Of: networks, CNI: true},
	capAliases:      {Name: "aliases", Of: networks, CNI: true},
}

const (
	portHostPort = iota
	portHostPortEnd
	portContainerPort
	portProtocol
	portHostIP
	portSourceRanges
)

var portTable = []Key{
	portHostPort:      {Name: "hostPort", Of: attachers},
	portHostPortEnd:   {Name: "hostPortEnd", Of: attachers},
	portContainerPort: {Name: "containerPort", Of: attachers},
	portProtocol:      {Name: "protocol", Of: attachers},
	portHostIP:        {Name: "hostIP", Of: attachers},
	portSourceRanges:  {Name: "sourceRanges", Of: attachers},
}

const (
	argsCNI = iota
)

var argsTable = []Key{
	argsCNI: {Name: "cni", Of: networks | IPAM, CNI: true, Inside: cniTable},
}

const (
	argIPs = iota
	argMAC
	argGwPriority
	argNames
)

var cniTable = []Key{
	argIPs:        {Name: "ips", Of: networks | IPAM},
	argMAC:        {Name: "mac", Of: networks},
	argGwPriority: {Name: "gwPriority", Of: networks},
	argNames:      {Name: "names", Of: networks},
}
