package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/libnet-cni/libnet/internal/cni"
)

// Whatever the configuration says, no verb panics, and none makes a file
// outside of the data directory. What ADD gave, DEL takes back.
func FuzzVerbs(f *testing.F) {
	f.Add("n", "c1", "eth0", `{"ranges":[[{"subnet":"10.1.0.0/29"}],[{"subnet":"fd00::/64"}]],"sticky":true,"cooldown":1,"strategy":"hash"}`)
	f.Add("n", "c1", "eth0", `{"subnet":"10.1.0.0/31","exclude":["10.1.0.1"],"rebootPolicy":"keep","warnAt":5}`)
	f.Add("..", "a/b", "x", `{"ranges":[[{"subnet":"10.0.0.0/8","rangeStart":"10.255.255.254","gateway":"10.0.0.1"}]],"auxAddresses":{"a":"10.9.9.9"}}`)
	f.Add("lock", "state", "..", `{"ranges":[[{"subnet":"0.0.0.0/0"}]],"routes":[{"dst":"10.0.0.0/8","gw":"::1"}]}`)
	f.Fuzz(func(t *testing.T, network, cid, ifName, ipam string) {
		parent := t.TempDir()
		data := filepath.Join(parent, "data")
		var keys map[string]any
		if json.Unmarshal([]byte(ipam), &keys) != nil || keys == nil || strings.Contains(ipam, "auto") {
			t.Skip()
		}
		for k := range keys {
			if strings.EqualFold(k, "dataDir") || strings.EqualFold(k, "resolvConf") {
				delete(keys, k) // may lead anywhere, which is the administrator's will
			}
		}
		keys["type"], keys["dataDir"] = "ipam-ln", data
		conf, err := json.Marshal(map[string]any{"cniVersion": "1.1.0", "name": network, "ipam": keys})
		if err != nil {
			t.Fatal(err)
		}
		env := map[string]string{"CNI_CONTAINERID": cid, "CNI_IFNAME": ifName, "CNI_NETNS": "/proc/thread-self/ns/net"}
		run := func(command string) int {
			env["CNI_COMMAND"] = command
			var stdout bytes.Buffer
			status := program().Run(func(k string) string { return env[k] }, cni.Streams{Stdin: bytes.NewReader(conf), Stdout: &stdout, Stderr: new(bytes.Buffer)})
			if stdout.Len() > 0 && !json.Valid(stdout.Bytes()) {
				t.Errorf("%s printed %q", command, &stdout)
			}
			return status
		}
		added := run("ADD") == 0
		if added && run("CHECK") != 0 {
			t.Error("CHECK fails after ADD")
		}
		run("STATUS")
		if run("DEL") != 0 && added {
			t.Error("DEL fails after ADD")
		}
		run("GC")
		only(t, parent, "data")
		if added && run("CHECK") == 0 {
			t.Error("CHECK passes after DEL")
		}
	})
}

// only fails the test if a directory has other entries than this.
func only(t *testing.T, dir, name string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() != name {
			t.Errorf("%s was made beside %s", e.Name(), name)
		}
	}
}
