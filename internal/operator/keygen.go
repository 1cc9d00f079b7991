package operator

import (
	"crypto/ecdh"
	"crypto/rand"
	"errors"
	"fmt"
	"os"

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
