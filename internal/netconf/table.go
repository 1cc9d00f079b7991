package netconf

// The keys of the outermost object.
const (
	keyBridge = iota
	keyIsGateway
	keyIsDefaultGateway
	keyGwPriority
	keyForceAddress
	keyIPMasq
	keyIPMasqBackend
	keyMTU
	keyHairpinMode
	keyPromiscMode
	keyVLAN
	keyVLANTrunk
	keyPreserveDefaultVLAN
	keyMACSpoofChk
	keyEnableDAD
	keyDisableContainerInterface
	keyPortIsolation
	keyGatewayMode
	keyTrustedInterfaces
	keyAcceptFwMark
	keySNATIPv4
	keySNATIPv6
	keyIngressPolicy
	keyInternal
	keyICC
	keyNodes
	keySubnet
	keyBlockSize
	keyVNI
	keyPort
	keyDevice
	keyIsolated
	keyEncryption
	keyPrivateKeyFile
	keySNAT
	keyMasqAll
	keyBackend
	keyConditionsV4
	keyConditionsV6
	keyMarkMasqBit
	keyExternalSetMarkChain
	keyNames
	keyFastPath
	keyConfigFrom
	keyStateDir
	keyStrict
	keyIPAM
	keyDNS
	keyRuntimeConfig
	keyArgs
	keyCapabilities
	keyCNIVersion
	keyName
	keyType
	keyPlugins
	keyPrevResult
	keyValidAttachments
	keyAttachments
	keyCount
)

const (
	attachers = networks | Portmap
	all       = attachers | IPAM
)

// table has the keys of the outermost object. Long ones are in sections of their own.
var table = [keyCount]Key{
	keyBridge: {Name: "bridge", Of: networks, From: fromBridge, Type: "string", Default: `"cni0"`, Cleanup: true,
		Does:    "Name of the bridge; made if missing. A link of that name that is no bridge is an error, as are `lo`, `all` and `default`.",
		Overlay: "The default is derived from `name`."},
	keyIsGateway: {Name: "isGateway", Of: networks, From: fromBridge, Type: "boolean", Default: "false",
		Does:    "The bridge gets the gateway address of each subnet, and forwarding is switched on for the families in use. A gateway is [in its subnet](../plugins/bridge-ln/README.md#gateways).",
		Overlay: "The bridge always has the gateway's address."},
	keyIsDefaultGateway: {Name: "isDefaultGateway", Of: networks, From: fromBridge, Type: "boolean", Default: "false",
		Does: "`isGateway`, and a default route over it in the container, for each family in which the IPAM sets none with a gateway. Most values of `gatewayMode` imply it."},
	keyGwPriority: {Name: "gwPriority", Of: networks, Type: "number", Default: "0",
		Does: "Of a container's networks the one with the highest has the default route, for each family; a whole number of 32 bits, negative ones too. Ties, metrics and all else: [several-networks.md](several-networks.md)."},
	keyForceAddress: {Name: "forceAddress", Of: networks, From: fromBridge, Type: "boolean", Default: "false",
		Does: "Replaces another gateway that the plugin gave the bridge and that no living container has; without the key that can be an error. Addresses that it did not give are never removed: see [Gateways](../plugins/bridge-ln/README.md#gateways)."},
	keyIPMasq: {Name: "ipMasq", Of: networks, From: fromBridge, Type: "boolean", Default: "false, with the modes nat and nat-unprotected true",
		Does: "A packet from a container's address that leaves by another interface than the bridge gets the host's address as source, multicast excepted. With nf_tables it needs Linux 5.7."},
	keyIPMasqBackend: {Name: "ipMasqBackend", Of: networks, From: fromBridge, Type: "string", Cleanup: true,
		Does: "`backend`, under the name that the reference plugin has for it; `\"auto\"` is ours."},
	keyMTU: {Name: "mtu", Of: networks, From: fromBridge, Type: "number or string", Default: "0",
		Does:    "Of the bridge and both ends of the veth, in bytes, 68 to 65535, with IPv6 from 1280. `0`: as the bridge has it. `\"auto\"` (ours): as the host's default route has it, or `0` without one.",
		Overlay: "The default is `\"auto\"`: the lowest MTU of the routes to the other hosts, less 50 bytes, or less 70 bytes if `nodes` are IPv6; with `encryption` less 60 and 80."},
	keyHairpinMode: {Name: "hairpinMode", Of: networks, From: fromBridge, Type: "boolean", Default: "false",
		Does: "A frame may leave by the port by which it came in. Not with `promiscMode`."},
	keyPromiscMode: {Name: "promiscMode", Of: networks, From: fromBridge, Type: "boolean", Default: "false",
		Does: "The bridge takes every frame. Not with `hairpinMode`."},
	keyVLAN: {Name: "vlan", Of: networks, From: fromBridge, Type: "number", Default: "0",
		Does:    "Access VLAN of the port, 1 to 4094; `0`: none. The gateway address is then on `<bridge>.<vlan>`. Needs bridge VLAN filtering.",
		Overlay: "Must be 0."},
	keyVLANTrunk: {Name: "vlanTrunk", Of: networks, From: fromBridge, Type: "list of objects", Inside: trunkTable[:],
		Does: "Tagged VLANs of the port: `[{\"id\": 10}, {\"minID\": 20, \"maxID\": 29}]`. Needs bridge VLAN filtering."},
	keyPreserveDefaultVLAN: {Name: "preserveDefaultVlan", Of: networks, From: fromBridge, Type: "boolean", Default: "false",
		Does: "Keeps VLAN 1 on the port."},
	keyMACSpoofChk: {Name: "macspoofchk", Of: networks, From: fromBridge, Type: "boolean", Default: "false",
		Does: "Frames from the container with another source MAC than its own are dropped. Needs nf_tables."},
	keyEnableDAD: {Name: "enabledad", Of: networks, From: fromBridge, Type: "boolean", Default: "false",
		Does: "IPv6 duplicate address detection in the container. ADD waits for its result."},
	keyDisableContainerInterface: {Name: "disableContainerInterface", Of: networks, From: fromBridge, Type: "boolean", Default: "false",
		Does: "Leaves the container's interface down. Not with `ipam`."},
	keyPortIsolation: {Name: "portIsolation", Of: networks, From: fromBridge, Type: "boolean", Default: "false",
		Does: "The ports exchange no frames with each other."},
	keyGatewayMode: {Name: "gatewayMode", Of: networks, Type: "string or object", Inside: modeTable[:],
		Does:    "Which clients outside reach the containers: `\"nat\"`, `\"nat-unprotected\"`, `\"routed\"` or `\"isolated\"`, as [Gateway modes](../plugins/bridge-ln/README.md#gateway-modes) says. One mode for both families, or one for each: `{\"ipv4\": \"nat\", \"ipv6\": \"routed\"}`.",
		Overlay: "The default is `\"nat\"`, or none if `internal` is set. Not `\"isolated\"`."},
	keyTrustedInterfaces: {Name: "trustedInterfaces", Of: networks, Type: "list of strings",
		Does: "Interfaces of the host; clients behind them reach published ports by the container's own address under the mode `nat`, too: `[\"wg0\"]`."},
	keyAcceptFwMark: {Name: "acceptFwMark", Of: networks, Type: "string or number",
		Does: "Packets with this mark come in, whatever the mode says: `\"0x1\"`, or `\"0x1/0xff\"` with a mask."},
	keySNATIPv4: {Name: "snatIPv4", Of: networks, Type: "address", Default: "that of the outgoing interface",
		Does: "IPv4 address of the host that masquerading gives. The family must be masqueraded."},
	keySNATIPv6: {Name: "snatIPv6", Of: networks, Type: "address", Default: "that of the outgoing interface",
		Does: "The same for IPv6."},
	keyIngressPolicy: {Name: "ingressPolicy", Of: networks, From: fromFirewall, Type: "string", Default: `"open"`,
		Does: "`\"same-bridge\"`: nothing is forwarded between the bridges of two networks with this policy or the next. `\"isolated\"`: that, and `icc` is `false`."},
	keyInternal: {Name: "internal", Of: networks, Type: "boolean", Default: "false",
		Does: "Nothing is forwarded between the bridge and any other interface, and no port is published. Not with `ipMasq` or `isDefaultGateway`."},
	keyICC: {Name: "icc", Of: networks, Type: "boolean", Default: "true",
		Does: "`false`: containers of the network do not reach each other: isolated ports, and nothing is routed back into the bridge."},
	keyNodes: {Name: "nodes", Of: Overlay, Type: "list of addresses and objects", Default: "none: ln-agent finds them", Inside: nodeTable[:],
		Does: "The hosts, each by the address at which the others reach it: `\"192.0.2.1\"`, or with blocks of its own `{\"address\": \"192.0.2.1\", \"subnet\": [\"10.5.1.0/24\", \"fd05:0:0:1::/64\"]}`. All addresses are of one family. Exactly one must be an address of this host."},
	keySubnet: {Name: "subnet", Of: Overlay, Type: "prefix or list of prefixes",
		Does: "The network's subnets, one or a list, one for each address family at most. Each host takes its block of them by its place in `nodes`: the first host the first block. Not needed if every node has its own."},
	keyBlockSize: {Name: "blockSize", Of: Overlay, Type: "object", Default: `{"ipv4": 24, "ipv6": 64}`, Inside: sizeTable[:],
		Does: "Length of a block's prefix, at most 30 and 126. Fewer blocks than nodes are an error."},
	keyVNI: {Name: "vni", Of: Overlay, Type: "number", Default: "derived from name; with ln-agent the next free one if that is taken",
		Does: "VXLAN network identifier, 1 to 16777215. The default is 4096 + (FNV-1a, 32 bits, of the name) modulo 16773120. Two networks of a host must differ in it or in `port`."},
	keyPort: {Name: "port", Of: Overlay, Type: "number", Default: "4789; with encryption derived from name",
		Does: "UDP port. With `encryption` the default is 61440 + (FNV-1a, 32 bits, of the name) modulo 4096, and two networks of a host must differ in it; without `nodes` it is the even one of a pair, and the other one is used, too. Let it through the host's own firewall, from the other hosts only."},
	keyDevice: {Name: "device", Of: Overlay, Type: "string", Default: "the device of the routes to the other hosts",
		Does: "Device of the host by which the other hosts are reached."},
	keyIsolated: {Name: "isolated", Of: Overlay, Type: "boolean", Default: "false",
		Does: "This host opens no connections to the network's containers, neither to its own nor to others'. By default it may, for probes."},
	keyEncryption: {Name: "encryption", Of: Overlay, Type: "string", Default: "none",
		Does: "`\"wireguard\"`: what goes from one host to another goes by WireGuard, in the place of VXLAN, and never otherwise: [Encryption](wireguard.md). Every node then needs its `publicKey`; without `nodes` ln-agent makes the keys. Not with `device` or `vni`."},
	keyPrivateKeyFile: {Name: "privateKeyFile", Of: Overlay, Type: "string",
		Does: "File with this host's private key, as `lnctl overlay keygen` makes it: an absolute path, of mode 0600. Needed with `encryption` and `nodes`, and refused without `nodes`."},
	keySNAT: {Name: "snat", Of: attachers, From: fromPortmap, Type: "boolean", Default: "true",
		Does: "The container itself, its neighbours and 127.0.0.0/8 of the host may use published ports; they are seen with the host's address."},
	keyMasqAll: {Name: "masqAll", Of: attachers, From: fromPortmap, Type: "boolean", Default: "false",
		Does: "All clients of published ports are seen with the host's address. It has no effect without `snat`."},
	keyBackend: {Name: "backend", Of: attachers, From: fromPortmap, Type: "string", Default: `"auto"`, Cleanup: true,
		Does:    "The backend that holds the rules: `\"nftables\"`, `\"iptables\"`, or, ours, `\"auto\"`: iptables only where the kernel has no nf_tables (portmap-ln: [or where other keys need it](../plugins/portmap-ln/README.md#conditions-and-the-backend)). After a change containers keep their rules in the old backend until DEL.",
		Overlay: "`\"iptables\"` is an error: nf_tables is needed."},
	keyConditionsV4: {Name: "conditionsV4", Of: Portmap, From: fromPortmap, Type: "list of strings", Cleanup: true,
		Does: "An IPv4 connection must match this, too, in the syntax of nft or of iptables: `[\"ip\", \"saddr\", \"10.0.0.0/8\"]`, `[\"-s\", \"10.0.0.0/8\"]`."},
	keyConditionsV6: {Name: "conditionsV6", Of: Portmap, From: fromPortmap, Type: "list of strings", Cleanup: true,
		Does: "The same for IPv6 connections."},
	keyMarkMasqBit: {Name: "markMasqBit", Of: Portmap, From: fromPortmap, Type: "number", Default: "13", Cleanup: true,
		Does: "Bit of the packet mark, 0 to 31, that says to masquerade. With nftables it is not used, as with the reference plugin."},
	keyExternalSetMarkChain: {Name: "externalSetMarkChain", Of: Portmap, From: fromPortmap, Type: "string", Cleanup: true,
		Does: "A chain of iptables, of another program, that sets the mark in place of ours, as `KUBE-MARK-MASQ`. Not with `markMasqBit`, nor with nftables."},
	keyNames: {Name: "names", Of: networks, Type: "boolean or object", Default: "false", Inside: namesTable[:],
		Does: "Containers of the network find each other by name, if ln-agent runs on the host or the kernel answers: `true`, or an object. See [names.md](names.md)."},
	keyFastPath: {Name: "fastPath", Of: networks, Type: "string", Default: `"off"`,
		Does:    "`\"auto\"`: packets between containers of the network go straight from one to the other once their flow has come through all rules, in a tc program: [Fast path](fast-path.md). Where the kernel cannot (Linux 5.10 with BPF), as with `\"off\"`.",
		Overlay: "Also those to and from other hosts, but for networks with `encryption`."},
	keyConfigFrom: {Name: "configFrom", Of: networks, Type: "string",
		Does: "Name of a template, `/etc/cni/ln/templates/<name>.json`, which says what this configuration leaves open: [Templates and defaults](templates.md)."},
	keyStateDir: {Name: "stateDir", Of: attachers, Type: "string", Default: `"/run/libnet"`, Cleanup: true,
		Does: "Directory of the records, an absolute path."},
	keyStrict: {Name: "strict", Of: attachers, Type: "boolean", Default: "false",
		Does: "A [misspelt key](#misspelt-keys) is an error (code 7), not a line on stderr."},
	keyIPAM: {Name: "ipam", Of: networks | IPAM, From: fromCNI, Type: "object", Inside: ipamTable[:], Cleanup: true,
		Does:    "Where addresses come from. Without it the network is layer 2 only. The keys inside are those of the type `\"ipam-ln\"`; any other type is a plugin that is run, with keys of its own.",
		Overlay: "May be missing. `type` can only be `\"ipam-ln\"`, with its keys but `ranges` and `subnet`: the range is this host's block, the gateway its first address."},
	keyDNS: {Name: "dns", Of: networks, From: fromCNI, Type: "object", Inside: dnsTable[:],
		Does: "If a key of it is set, they replace those of the IPAM."},
	keyRuntimeConfig: {Name: "runtimeConfig", Of: all, From: fromCNI, Type: "object", Inside: runtimeTable[:],
		Does: "Values that the runtime gives for the capabilities of the configuration; runtimes write it."},
	keyArgs: {Name: "args", Of: networks | IPAM, From: fromCNI, Type: "object", Inside: argsTable[:],
		Does: "Values that a runtime gives by the conventions of CNI."},
	keyCapabilities: {Name: "capabilities", Of: all, From: fromCNI, Type: "object", Inside: capabilitiesTable[:], Exact: true,
		Does: "Which keys of `runtimeConfig` the runtime is to send: `{\"portMappings\": true}`. libcni reads it, and takes no other spelling."},
	keyCNIVersion: {Name: "cniVersion", Of: all, From: fromCNI, Type: "string", Default: `"0.1.0"`,
		Does: "Version of the specification, up to `\"1.1.0\"`."},
	keyName: {Name: "name", Of: all, From: fromCNI, Type: "string",
		Does: "Name of the network. Required."},
	keyType: {Name: "type", Of: all, From: fromCNI, Type: "string",
		Does: "Name of the plugin's binary. Required by runtimes."},
	keyPlugins: {Name: "plugins", From: fromCNI, Type: "list of objects", // of none: libcni takes a list apart
		Does: "The plugins of a list; none of them sees it."},
	keyPrevResult: {Name: "prevResult", Of: all, From: fromCNI, Type: "object",
		Does: "Result of the plugin before; runtimes write it."},
	keyValidAttachments: {Name: "cni.dev/valid-attachments", Of: all, From: fromCNI, Type: "list of objects", Cleanup: true,
		Does: "The attachments that GC keeps; runtimes write it."},
	keyAttachments: {Name: "cni.dev/attachments", Of: all, From: fromCNI, Type: "list of objects", Cleanup: true,
		Does: "The same, as libcni before 1.3 writes it."},
}
