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
	keyDirectRouting
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
	keyLog
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
	keyBridge:                    {Name: "bridge", Of: networks, Cleanup: true},
	keyIsGateway:                 {Name: "isGateway", Of: networks},
	keyIsDefaultGateway:          {Name: "isDefaultGateway", Of: networks},
	keyGwPriority:                {Name: "gwPriority", Of: networks},
	keyForceAddress:              {Name: "forceAddress", Of: networks},
	keyIPMasq:                    {Name: "ipMasq", Of: networks},
	keyIPMasqBackend:             {Name: "ipMasqBackend", Of: networks, Cleanup: true},
	keyMTU:                       {Name: "mtu", Of: networks},
	keyHairpinMode:               {Name: "hairpinMode", Of: networks},
	keyPromiscMode:               {Name: "promiscMode", Of: networks},
	keyVLAN:                      {Name: "vlan", Of: networks},
	keyVLANTrunk:                 {Name: "vlanTrunk", Of: networks, Inside: trunkTable},
	keyPreserveDefaultVLAN:       {Name: "preserveDefaultVlan", Of: networks},
	keyMACSpoofChk:               {Name: "macspoofchk", Of: networks},
	keyEnableDAD:                 {Name: "enabledad", Of: networks},
	keyDisableContainerInterface: {Name: "disableContainerInterface", Of: networks},
	keyPortIsolation:             {Name: "portIsolation", Of: networks},
	keyGatewayMode:               {Name: "gatewayMode", Of: networks, Inside: modeTable},
	keyTrustedInterfaces:         {Name: "trustedInterfaces", Of: networks},
	keyAcceptFwMark:              {Name: "acceptFwMark", Of: networks},
	keySNATIPv4:                  {Name: "snatIPv4", Of: networks},
	keySNATIPv6:                  {Name: "snatIPv6", Of: networks},
	keyIngressPolicy:             {Name: "ingressPolicy", Of: networks},
	keyInternal:                  {Name: "internal", Of: networks},
	keyICC:                       {Name: "icc", Of: networks},
	keyNodes:                     {Name: "nodes", Of: Overlay, Inside: nodeTable},
	keySubnet:                    {Name: "subnet", Of: Overlay},
	keyBlockSize:                 {Name: "blockSize", Of: Overlay, Inside: sizeTable},
	keyVNI:                       {Name: "vni", Of: Overlay},
	keyPort:                      {Name: "port", Of: Overlay},
	keyDevice:                    {Name: "device", Of: Overlay},
	keyIsolated:                  {Name: "isolated", Of: Overlay},
	keyDirectRouting:             {Name: "directRouting", Of: Overlay},
	keyEncryption:                {Name: "encryption", Of: Overlay},
	keyPrivateKeyFile:            {Name: "privateKeyFile", Of: Overlay},
	keySNAT:                      {Name: "snat", Of: attachers},
	keyMasqAll:                   {Name: "masqAll", Of: attachers},
	keyBackend:                   {Name: "backend", Of: attachers, Cleanup: true},
	keyConditionsV4:              {Name: "conditionsV4", Of: Portmap, Cleanup: true},
	keyConditionsV6:              {Name: "conditionsV6", Of: Portmap, Cleanup: true},
	keyMarkMasqBit:               {Name: "markMasqBit", Of: Portmap, Cleanup: true},
	keyExternalSetMarkChain:      {Name: "externalSetMarkChain", Of: Portmap, Cleanup: true},
	keyNames:                     {Name: "names", Of: networks, Inside: namesTable},
	keyFastPath:                  {Name: "fastPath", Of: networks},
	keyConfigFrom:                {Name: "configFrom", Of: networks},
	keyLog:                       {Name: "log", Of: attachers, Inside: logTable, Cleanup: true},
	keyStateDir:                  {Name: "stateDir", Of: attachers, Cleanup: true},
	keyStrict:                    {Name: "strict", Of: attachers},
	keyIPAM:                      {Name: "ipam", Of: networks | IPAM, CNI: true, Inside: ipamTable, Cleanup: true},
	keyDNS:                       {Name: "dns", Of: networks, CNI: true, Inside: dnsTable},
	keyRuntimeConfig:             {Name: "runtimeConfig", Of: all, CNI: true, Inside: runtimeTable},
	keyArgs:                      {Name: "args", Of: networks | IPAM, CNI: true, Inside: argsTable},
	keyCapabilities:              {Name: "capabilities", Of: all, CNI: true, Inside: capabilitiesTable, Exact: true},
	keyCNIVersion:                {Name: "cniVersion", Of: all, CNI: true},
	keyName:                      {Name: "name", Of: all, CNI: true},
	keyType:                      {Name: "type", Of: all, CNI: true},
	keyPlugins:                   {Name: "plugins", CNI: true}, // of none: libcni takes a list apart
	keyPrevResult:                {Name: "prevResult", Of: all, CNI: true},
	keyValidAttachments:          {Name: "cni.dev/valid-attachments", Of: all, CNI: true, Cleanup: true},
	keyAttachments:               {Name: "cni.dev/attachments", Of: all, CNI: true, Cleanup: true},
}
