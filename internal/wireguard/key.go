package wireguard

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/plain"
	"github.com/libnet-cni/libnet/internal/sentinel"
)

// keySize is that of both halves of a key pair, in bytes (Curve25519).
const keySize = 32

// Key is a public key. The zero Key is none.
type Key [keySize]byte

// ParseKey reads a key as wg(8) writes it: 44 characters of base64.
func ParseKey(s string) (k Key, err error) {
	data, err := base64.StdEncoding.Strict().DecodeString(s)
	if err != nil || len(data) != keySize {
		return Key{}, errors.New("want 44 characters of base64")
	}
	return Key(data), nil
}

// IsZero says that it is none.
func (k Key) IsZero() bool { return k == Key{} }

// String is the key as wg(8) writes it.
func (k Key) String() string { return base64.StdEncoding.EncodeToString(k[:]) }

// MarshalText is String.
func (k Key) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// UnmarshalText is ParseKey.
func (k *Key) UnmarshalText(text []byte) (err error) {
	*k, err = ParseKey(string(text))
	return err
}

func (k Key) hex() string { return hex.EncodeToString(k[:]) }

// PrivateKey is the half of a key pair that leaves its host never: neither a record nor an
// error has it. The zero PrivateKey is none.
type PrivateKey [keySize]byte

// String does not tell the key.
func (PrivateKey) String() string { return "(private key)" }

// GoString does not tell the key.
func (PrivateKey) GoString() string { return "(private key)" }

// ErrKeyFile says that a file of a private key cannot be used.
var ErrKeyFile error = &sentinel.Error{Text: "private key cannot be used"}

// ErrNoKeyFile says that there is no such file.
var ErrNoKeyFile error = &sentinel.Error{Text: `there is no such file: make it by "lnctl overlay keygen"`}

// KeyFileError names the key of the configuration, the file and what is wrong with it. It is
// ErrKeyFile.
type KeyFileError struct {
	Path string
	Err  error
}

// Error names the file, and what would be right.
func (e *KeyFileError) Error() string { return fmt.Sprintf("privateKeyFile: %q: %v", e.Path, e.Err) }

// Unwrap returns what is wrong.
func (e *KeyFileError) Unwrap() error { return e.Err }

// Is says that it is ErrKeyFile.
func (e *KeyFileError) Is(target error) bool { return target == ErrKeyFile }

// ReadKeyFile reads a private key, which has to be a regular file that belongs to root or
// to the user of this process, and that no other user may read or write. The error is a
// *KeyFileError.
func ReadKeyFile(path string) (PrivateKey, error) {
	k, err := readKeyFile(path)
	if err != nil {
		return PrivateKey{}, &KeyFileError{path, err}
	}
	return k, nil
}

func readKeyFile(path string) (k PrivateKey, err error) {
	f, err := plain.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return k, ErrNoKeyFile
	}
	if err != nil {
		return k, errors.Unwrap(err)
	}
	defer func() { _ = f.Close() }()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return k, err
	}
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return k, errors.New("it is no regular file")
	case st.Mode&0o077 != 0:
		return k, fmt.Errorf("its mode is %04o: want 0600, as others can use the key", st.Mode&0o7777)
	case st.Uid != 0 && int(st.Uid) != os.Geteuid():
		return k, fmt.Errorf("user %d owns it, and can change the key: want root", st.Uid)
	}
	var text [64]byte
	n, err := f.Read(text[:])
	if n == 0 || err != nil {
		return k, errors.New(`it is empty: make the key by "lnctl overlay keygen"`)
	}
	public, err := ParseKey(strings.TrimSpace(string(text[:n])))
	if err == nil && public.IsZero() {
		err = errors.New("it is all zero")
	}
	if err != nil {
		return k, fmt.Errorf("%w: a private key as \"lnctl overlay keygen\" or \"wg genkey\" writes it", err)
	}
	return Clamp(public), nil
}

// Clamp sets the bits that Curve25519 sets in every private key (RFC 7748, section 5), as
// devices do and tell it.
func Clamp(k [keySize]byte) PrivateKey {
	k[0] &= 248
	k[keySize-1] = k[keySize-1]&127 | 64
	return k
}
