package integration

import (
	"crypto/ecdh"
	"crypto/rand"
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/libnet-cni/libnet/internal/wireguard"
)

// otherKeyOf gives the device of a host another private key, as "wg set" does.
func (s *secure) otherKeyOf(host string) {
	s.t.Helper()
	key, err := ecdh.X25519().GenerateKey(rand.Reader)
	s.check(err)
	private := wireguard.PrivateKey(wireguard.Clamp([32]byte(key.Bytes())))
	s.in(netnsPath(host), func() {
		d := s.wireguardOf(host)
		s.check(d.Change(wireguard.Change{PrivateKey: &private}))
	})
}

// wantsFinding wants doctor to say this on h1; nothing: to find nothing.
func (s *secure) wantsFinding(name string, want ...string) {
	s.t.Helper()
	s.in(netnsPath("h1"), func() {
		out, err := exec.Command(program(s.t, "lnctl"), "--state-dir", "/run/libnet-h1", "--data-dir", "/var/lib/leases-h1", "doctor").CombinedOutput()
		if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
			s.t.Fatalf("%s: %v, %s", name, err, out)
		}
		for _, w := range want {
			if !strings.Contains(string(out), w) {
				s.t.Errorf("%s: doctor does not say %q:\n%s", name, w, out)
			}
		}
		if (err == nil) != (len(want) == 0) {
			s.t.Errorf("%s: doctor says %v:\n%s", name, err, out)
		}
	})
}

// A key that does not fit is found, with the key that it is of: another one in the device, in the
// file, or on the other host. Doctor does not fall silent when repair gives the device the wrong
// key.
func TestDoctorOfKeys(t *testing.T) {
	t.Parallel()
	s := newSecure(t, 2, false)
	all := s.all()
	s.reachAll(all)
	s.wantsFinding("well")
	s.otherKeyOf("h1")
	s.wantsFinding("another key in the device", "its private key is not that of privateKeyFile")
	s.mustOn("h1", call{plugin: "overlay-ln", command: "STATUS", stdin: all[0].call.stdin})
	s.wantsFinding("well again")
	s.check(os.Rename(keyFile("h1"), keyFile("h1")+".right"))
	s.wantsFinding("no file", "there is no such file")
	public := s.keygen(keyFile("h1"))
	says := []string{"the private key in " + keyFile("h1") + " is that of " + public + ", and the other hosts know this one by " + s.keys["h1"], "have privateKeyFile name the right file"}
	s.wantsFinding("another key in the file", says...)
	_, _ = s.lnctl(0, "repair")
	s.wantsFinding("another key in file and device", says...)
	s.check(os.Rename(keyFile("h1")+".right", keyFile("h1")))
	s.otherKeyOf("h2")
	s.in(netnsPath("h1"), s.takePeers)
	s.mustOn("h1", call{plugin: "overlay-ln", command: "STATUS", stdin: all[0].call.stdin})
	s.shout(all[0], all[1])
	s.wantsFinding("another key on the other host", "bytes were sent to "+s.address(1).String()+":51000, and no handshake came of it", "lnctl overlay pubkey prints "+s.keys["h2"])
}

// The same with keys of ln-agent, which is not there to mend them.
func TestDoctorOfAgentKeys(t *testing.T) {
	t.Parallel()
	r := newRotating(t, 2)
	all := r.containers()
	r.pingAll(all...)
	r.wantsFinding("well")
	r.agents.procs["h1"].kill(t)
	r.otherKeyOf("h1")
	r.wantsFinding("another key in the device", "its private key is not that of")
	r.agents.mustOn("h1", call{plugin: "overlay-ln", command: "STATUS", stdin: all[0].call.stdin})
	r.wantsFinding("well again")
	path := r.privateKeys("h1")[0]
	r.agents.check(os.Remove(path))
	public := r.keygen(path)
	r.wantsFinding("another key in the file", "the private key in "+path+" is that of "+public, "see that it runs")
	r.start("h1") // it announces the key
	r.await("way to h2", func() bool { return r.reaches(all[0], all[1]) && r.reaches(all[1], all[0]) })
	r.awaitPeers("h1", 1)
	r.wantsFinding("well with the new key")
}
