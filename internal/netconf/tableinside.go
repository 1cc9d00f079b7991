package netconf

const (
	modeIPv4 = iota
	modeIPv6
	modeCount
)

var modeTable = [modeCount]Key{
	modeIPv4: {Name: "ipv4", Of: networks, Type: "string", Does: "The mode for IPv4; the key or `ipv6` must be there."},
	modeIPv6: {Name: "ipv6", Of: networks, Type: "string", Does: "The mode for IPv6."},
}

const (
	trunkID = iota
	trunkMinID
	trunkMaxID
	trunkCount
)

var trunkTable = [trunkCount]Key{
	trunkID:    {Name: "id", Of: networks, From: fromBridge, Type: "number", Does: "One VLAN, 1 to 4094."},
	trunkMinID: {Name: "minID", Of: networks, From: fromBridge, Type: "number", Does: "The first of a range of VLANs."},
	trunkMaxID: {Name: "maxID", Of: networks, From: fromBridge, Type: "number", Does: "The last of it."},
}

const (
	nodeAddress = iota
	nodeSubnet
	nodePublicKey
	nodeCount
)

var nodeTable = [nodeCount]Key{
	nodeAddress:   {Name: "address", Of: Overlay, Type: "address", Does: "The host's address. Required."},
	nodeSubnet:    {Name: "subnet", Of: Overlay, Type: "prefix or list of prefixes", Does: "The host's blocks, one for each address family at most."},
	nodePublicKey: {Name: "publicKey", Of: Overlay, Type: "string", Does: "The host's public key, as `lnctl overlay keygen` prints it: 44 characters of base64. Needed with `encryption`."},
}

const (
	sizeIPv4 = iota
	sizeIPv6
	sizeCount
)

var sizeTable = [sizeCount]Key{
	sizeIPv4: {Name: "ipv4", Of: Overlay, Type: "number", Default: "24", Does: "1 to 30."},
	sizeIPv6: {Name: "ipv6", Of: Overlay, Type: "number", Default: "64", Does: "1 to 126."},
}

const (
	dnsNameservers = iota
	dnsDomain
	dnsSearch
	dnsOptions
	dnsCount
)

var dnsTable = [dnsCount]Key{
	dnsNameservers: {Name: "nameservers", Of: networks, From: fromCNI, Type: "list of strings", Does: "Addresses of name servers."},
	dnsDomain:      {Name: "domain", Of: networks, From: fromCNI, Type: "string", Does: "The local domain."},
	dnsSearch:      {Name: "search", Of: networks, From: fromCNI, Type: "list of strings", Does: "Domains to search."},
	dnsOptions:     {Name: "options", Of: networks, From: fromCNI, Type: "list of strings", Does: "Options of the resolver."},
}

const (
	namesDomain = iota
	namesResponder
	namesCount
)

var namesTable = [namesCount]Key{
	namesDomain: {Name: "domain", Of: networks, Type: "string", Default: `"libnet.internal"`, Does: "The domain of the network's names."},
	namesResponder: {Name: "responder", Of: networks, Type: "string", Default: `"agent"`,
		Does: "What answers: `agent`: ln-agent; `bpf`: the kernel, for names of this host, and ln-agent, if it runs, for the rest; `auto`: the kernel for a container that comes while no ln-agent answers. See [names.md](names.md#without-an-agent)."},
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
	capCount
)

var runtimeTable = [capCount]Key{
	capPortMappings: {Name: "portMappings", Of: attachers, From: fromPortmap, Type: "list of objects", Inside: portTable[:],
		Does: "Ports of the host that lead to the container: [Ports](../plugins/bridge-ln/README.md#ports)."},
	capIPRanges: {Name: "ipRanges", Of: Bridge | IPAM, From: fromHostLocal, Type: "list of range sets", Inside: rangeTable[:],
		Does: "Range sets of the runtime; they come before those of `ipam`. A flat list of ranges (ours) is a list of sets of one."},
	capIPs: {Name: "ips", Of: networks | IPAM, From: fromHostLocal, Type: "list of addresses",
		Does: "Addresses to give, with or without a prefix length; at most one of each set. `args.cni.ips` and `IP=` of `CNI_ARGS` add to them."},
	capMAC: {Name: "mac", Of: networks, From: fromBridge, Type: "string",
		Does: "MAC address of the container; it comes before `args.cni.mac`, and that before `MAC=` of `CNI_ARGS`. Without one it is random."},
	capGwPriority: {Name: "gwPriority", Of: networks, Type: "number",
		Does: "`gwPriority` for one container; it comes before `args.cni.gwPriority`."},
	capBandwidth: {Name: "bandwidth", Of: networks, From: fromCNI, Type: "object",
		Does: "What the plugin `bandwidth` behind this one limits: with a rate the container is not on the fast path."},
	capAliases: {Name: "aliases", Of: networks, From: fromCNI, Type: "list of strings or object",
		Does: "More names of the container on a network with `names`; or an object with a list for each network."},
}

// capabilitiesTable has the names of runtimeTable.
var capabilitiesTable = [capCount]Key{
	capPortMappings: {Name: "portMappings", Of: attachers, From: fromPortmap, Type: "boolean", Default: "false", Does: "The plugin publishes ports."},
	capIPRanges:     {Name: "ipRanges", Of: Bridge | IPAM, From: fromHostLocal, Type: "boolean", Default: "false", Does: "The runtime gives range sets."},
	capIPs:          {Name: "ips", Of: networks | IPAM, From: fromHostLocal, Type: "boolean", Default: "false", Does: "The runtime asks for addresses."},
	capMAC:          {Name: "mac", Of: networks, From: fromBridge, Type: "boolean", Default: "false", Does: "The runtime asks for a MAC address."},
	capGwPriority:   {Name: "gwPriority", Of: networks, Type: "boolean", Default: "false", Does: "The runtime gives the priority."},
	capBandwidth:    {Name: "bandwidth", Of: networks, From: fromCNI, Type: "boolean", Default: "false", Does: "The runtime tells the container's limits of bandwidth."},
	capAliases:      {Name: "aliases", Of: networks, From: fromCNI, Type: "boolean", Default: "false", Does: "The runtime gives names."},
}

const (
	portHostPort = iota
	portHostPortEnd
	portContainerPort
	portProtocol
	portHostIP
	portSourceRanges
	portCount
)

var portTable = [portCount]Key{
	portHostPort: {Name: "hostPort", Of: attachers, From: fromPortmap, Type: "number", Default: "0",
		Does: "1 to 65535; `0` (ours): a free one of `net.ipv4.ip_local_port_range`."},
	portHostPortEnd: {Name: "hostPortEnd", Of: attachers, Type: "number", Default: "hostPort",
		Does: "Last port of a range; as many ports of the container follow `containerPort`."},
	portContainerPort: {Name: "containerPort", Of: attachers, From: fromPortmap, Type: "number", Default: "with hostPortEnd, hostPort",
		Does: "1 to 65535."},
	portProtocol: {Name: "protocol", Of: attachers, From: fromPortmap, Type: "string", Default: `"tcp"`,
		Does: "`\"tcp\"`, `\"udp\"` or `\"sctp\"`, in any case."},
	portHostIP: {Name: "hostIP", Of: attachers, From: fromPortmap, Type: "address", Default: "any",
		Does: "Address of the host. `0.0.0.0` and `::` are any of one family. An entry with a `hostIP` of a family in which the container has no address is skipped."},
	portSourceRanges: {Name: "sourceRanges", Of: attachers, Type: "list of prefixes", Default: "all",
		Does: "The clients that may use the port, as addresses and prefixes: `[\"10.0.0.0/8\", \"2001:db8::1\"]`."},
}

const (
	argsCNI = iota
	argsCount
)

var argsTable = [argsCount]Key{
	argsCNI: {Name: "cni", Of: networks | IPAM, From: fromCNI, Type: "object", Inside: cniTable[:], Does: "The conventions of CNI."},
}

const (
	argIPs = iota
	argMAC
	argGwPriority
	argNames
	argCount
)

var cniTable = [argCount]Key{
	argIPs:        {Name: "ips", Of: networks | IPAM, From: fromHostLocal, Type: "list of addresses", Does: "As `runtimeConfig.ips`."},
	argMAC:        {Name: "mac", Of: networks, From: fromBridge, Type: "string", Does: "As `runtimeConfig.mac`."},
	argGwPriority: {Name: "gwPriority", Of: networks, Type: "number", Does: "As `runtimeConfig.gwPriority`."},
	argNames:      {Name: "names", Of: networks, Type: "list of strings", Does: "Names of the container on a network with `names`; they come before `runtimeConfig.aliases`."},
}
