package etcd

import (
	"testing"

	"go.etcd.io/etcd/api/v3/mvccpb"
)

// Whatever stands in etcd, a view comes of it, and what is deleted is gone.
func FuzzMirror(f *testing.F) {
	for key, value := range map[string]string{
		"nodes/h1": `{"address":"192.0.2.1"}`, "live/nodes/h1": `{}`, "holds/h1": `{"seconds":1}`,
		"networks/n/blocks/10.5.1.0/24": `{"node":"h1"}`, "networks/n/terms": `{"subnets":["10.5.0.0/16"],"blockSize":{"ipv4":24},"vni":7,"port":1,"underlay":"ipv4"}`,
		"networks": "", "names/n/h1/c:eth0": `{"names":["web"],"addresses":["10.5.1.2"]}`, "names/n/h1/c": "{}", "": "", "//": "{", "networks/n/blocks/::/0": "null",
	} {
		f.Add(key, []byte(value))
	}
	f.Fuzz(func(t *testing.T, key string, value []byte) {
		m := newMirror(keys{DefaultPrefix})
		full := []byte(m.keys.all() + key)
		for _, kv := range []*mvccpb.KeyValue{
			{Key: []byte(m.keys.terms("n")), Value: []byte(`{"subnets":["10.5.0.0/16"],"blockSize":{"ipv4":24},"vni":7,"port":1,"underlay":"ipv4"}`)},
			{Key: []byte(m.keys.node("h1")), Value: []byte(`{"address":"192.0.2.1"}`)},
			{Key: full, Value: value},
		} {
			m.put(kv)
		}
		v := m.view()
		for name := range v.Networks {
			hosts, _ := v.Hosts(name)
			for _, h := range hosts {
				if !h.Address.IsGlobalUnicast() || len(h.Blocks) == 0 {
					t.Errorf("host %+v", h)
				}
			}
		}
		_ = v.Gone()
		m.drop(string(full))
		if v := m.view(); len(v.Problems) > 0 {
			t.Errorf("of what is deleted there is %q", v.Problems)
		}
	})
}
