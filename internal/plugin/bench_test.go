package plugin

import (
	"strings"
	"testing"
)

// typical is what containerd sends bridge-ln for a container with a port.
const typical = `{"bridge":"cni0","capabilities":{"portMappings":true},"cniVersion":"1.1.0","hairpinMode":true,"gatewayMode":"nat","mtu":"auto",
	"ipam":{"ranges":[[{"subnet":"10.88.0.0/24"}],[{"subnet":"fd88::/64"}]],"routes":[{"dst":"0.0.0.0/0"}],"type":"ipam-ln"},"name":"net1","type":"bridge-ln",
	"runtimeConfig":{"portMappings":[{"HostPort":18090,"ContainerPort":80,"Protocol":"tcp","HostIP":""}]}}`

// BenchmarkParse is what an ADD spends on its configuration.
func BenchmarkParse(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := parse(callOf(typical)); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkVet is what it spends on keys that are misspelt: for one with none, and one with a
// misspelt and a vendor's key.
func BenchmarkVet(b *testing.B) {
	for name, conf := range map[string]string{"none": typical, "two": strings.Replace(typical, `"gatewayMode"`, `"vendor":1,"gatewaymod"`, 1)} {
		b.Run(name, func(b *testing.B) {
			c := callOf(conf)
			c.Warn = func(string) {}
			b.ReportAllocs()
			for b.Loop() {
				if err := Vet(bridge.keys)(c); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
