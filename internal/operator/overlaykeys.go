package operator

import (
	"bufio"
	"crypto/ecdh"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/libnet-cni/libnet/internal/service"
	"github.com/libnet-cni/libnet/internal/wireguard"
)

// MakeKey writes a new private key of WireGuard to a file that is not there yet, and returns
// the public key. Only the user of this process can read the file from its first moment on.
func MakeKey(path string) (public wireguard.Key, err error) {
	key, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return public, err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600) //nolint:forbidigo // of lnctl alone
	if errors.Is(err, os.ErrExist) {
		return public, fmt.Errorf("%s is there already: a key is not replaced; lnctl overlay pubkey prints its public key", path)
	}
	if err != nil {
		return public, err
	}
	_, err = f.WriteString(wireguard.Key(wireguard.Clamp([32]byte(key.Bytes()))).String() + "\n")
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return public, errors.Join(err, os.Remove(path))
	}
	return wireguard.Key(key.PublicKey().Bytes()), nil
}

// PublicKey returns the public key of the private key in a file. The error is a
// *wireguard.KeyFileError.
func PublicKey(path string) (public wireguard.Key, err error) {
	private, err := wireguard.ReadKeyFile(path)
	if err != nil {
		return public, err
	}
	key, err := ecdh.X25519().NewPrivateKey(private[:])
	if err != nil {
		return public, err
	}
	return wireguard.Key(key.PublicKey().Bytes()), nil
}

// askPatience is how long ln-agent may take for an answer, beside what it is asked to wait.
const askPatience = 10 * time.Second

// request and answer are those of package agent, which has the other end.
type request struct {
	Do, Network, Node string
	Wait              time.Duration
	Service           *service.Request
}

type answer struct {
	Error   string
	Epoch   int
	Service *service.Shared
}

// RotateKeys has the ln-agent of this host begin a new epoch of keys of a network, which it
// returns, and waits until all hosts have followed, but not longer than wait; 0: not at all.
func (o *Operator) RotateKeys(network string, wait time.Duration) (epoch int, err error) {
	a, err := o.ask(request{Do: "rotate-keys", Network: network, Wait: wait})
	return a.Epoch, err
}

// Evict has the ln-agent of this host have all hosts leave a node out of all networks. Admit takes
// that back.
func (o *Operator) Evict(node string) error {
	_, err := o.ask(request{Do: "evict", Node: node})
	return err
}

// Admit takes back Evict.
func (o *Operator) Admit(node string) error {
	_, err := o.ask(request{Do: "admit", Node: node})
	return err
}

func (o *Operator) ask(r request) (a answer, err error) {
	path := filepath.Join(o.StateDir, "overlay", "agent.sock")
	c, err := net.Dial("unix", path)
	if err != nil {
		return a, fmt.Errorf("ln-agent of this host does not answer: see that it runs with --state-dir %s: %w", o.StateDir, err)
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	line, err := json.Marshal(r)
	if err != nil {
		return a, err
	}
	if err := c.SetDeadline(time.Now().Add(r.Wait + askPatience)); err != nil {
		return a, err
	}
	if _, err := c.Write(append(line, '\n')); err != nil {
		return a, fmt.Errorf("ask ln-agent: %w", err)
	}
	line, err = bufio.NewReader(c).ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &a)
	}
	if err != nil {
		return a, fmt.Errorf("ask ln-agent: no whole answer: %w", err)
	}
	if a.Error != "" {
		return a, errors.New(a.Error)
	}
	return a, nil
}

// KeyedNetworks are the encrypted networks that ln-agent keeps on this host. It is an error if there is
// none.
func (o *Operator) KeyedNetworks() ([]string, error) {
	names, err := o.NodeFiles()
	errs := []error{err}
	var all []string
	for _, name := range names {
		f, err := o.NodeFile(name)
		if err == nil && f.Encryption != "" {
			all = append(all, name)
		}
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil || len(all) > 0 {
		return all, err
	}
	return nil, errors.New("ln-agent keeps no encrypted network on this host")
}
