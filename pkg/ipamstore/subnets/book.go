package subnets

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/pooldir"
	"github.com/libnet-cni/libnet/internal/sorting"
	"github.com/libnet-cni/libnet/pkg/ipamstore"
)

// The book of subnets lies beside the indexes of the pools, under a name that
// no network can have. It is replaced as a whole, so that reading needs no
// lock, and synced, as it changes but once in a network's life.
const (
	bookDir   = ".subnets"
	bookFile  = "subnets" // lines "<network> <subnet>"
	bookLimit = 16 << 20
)

// Book is the book of which network of this host holds which automatically
// chosen subnet: <data dir>/.libnet/.subnets/subnets. It is never voided, not
// by a reboot either: a network has its subnet until Remove. The zero value is
// the book in /var/lib/cni/networks. It may be used by many goroutines and
// processes at once.
type Book struct {
	// DataDir is the folder of all pools; "" is /var/lib/cni/networks.
	DataDir string
	// PoolsFile lists the address pools; "" is DefaultPoolsFile.
	PoolsFile string
	// LockTimeout bounds the wait for the lock; zero is 10 seconds.
	LockTimeout time.Duration
}

// Claim asks for a subnet for a network.
type Claim struct {
	Network string
	Want    Request
	// InUse is what the subnet must not overlap, beside the subnets in the
	// book.
	InUse []netip.Prefix
	// Keep is a subnet of the wanted family that the network is known to
	// live in, should the book have lost it: it is entered as it is. The zero
	// Prefix is none.
	Keep netip.Prefix
}

// Held is an entry of the book.
type Held struct {
	Network string
	Subnet  netip.Prefix
}

// Apply returns the network's subnet of the wanted family. One that it holds
// stays, whatever is in use by now and whatever size is wanted by now; else
// the lowest free subnet of the address pools is entered.
//
// Errors are *ConfigError, ErrExhausted, ErrTaken if another network holds
// what overlaps Keep, ErrLocked, ErrIO.
func (s *Book) Apply(ctx context.Context, c Claim) (netip.Prefix, error) {
	if !pooldir.ValidName(c.Network) {
		return netip.Prefix{}, badConfig("name", c.Network, "must be letters, digits, '_', '.' or '-' and start with a letter or digit")
	}
	pools, err := LoadPools(s.PoolsFile)
	if err != nil {
		return netip.Prefix{}, err
	}
	var got netip.Prefix
	err = s.change(ctx, func(book []Held) ([]Held, error) {
		if got = heldBy(book, c.Network, c.Want.IPv6); got.IsValid() {
			return book, nil
		}
		if got, err = c.choose(pools, book); err != nil {
			return nil, err
		}
		return append(book, Held{c.Network, got}), nil
	})
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("subnet of network %s: %w", c.Network, err)
	}
	return got, nil
}

func (c *Claim) choose(pools []Pool, book []Held) (netip.Prefix, error) {
	used := slices.Clone(c.InUse)
	for _, h := range book {
		if c.Keep.IsValid() && c.Keep.Overlaps(h.Subnet) {
			return netip.Prefix{}, fmt.Errorf("%s overlaps %s of network %s: %w", c.Keep, h.Subnet, h.Network, ipamstore.ErrTaken)
		}
		used = append(used, h.Subnet)
	}
	if c.Keep.IsValid() {
		return c.Keep.Masked(), nil
	}
	return Choose(pools, used, c.Want)
}

// Lookup returns the network's subnet of a family; the zero Prefix if it holds
// none. It takes no lock.
//
// Errors are ErrIO.
func (s *Book) Lookup(network string, ipv6 bool) (netip.Prefix, error) {
	book, err := s.List()
	return heldBy(book, network, ipv6), err
}

// Remove gives back what the network holds, of both families, and removes what
// a killed process left beside the book. Nothing held is success; without
// either no lock is taken.
//
// Errors are ErrLocked, ErrIO.
func (s *Book) Remove(ctx context.Context, network string) error {
	own := func(h Held) bool { return h.Network == network }
	book, err := s.List()
	left := unix.Access(filepath.Join(s.path(), pooldir.Draft), unix.F_OK) == nil
	if err != nil || !left && !slices.ContainsFunc(book, own) {
		return err
	}
	return s.change(ctx, func(book []Held) ([]Held, error) {
		return slices.DeleteFunc(slices.Clone(book), own), nil
	})
}

// List returns the whole book, in the order of subnets. It takes no lock. A
// book that cannot be read whole is an error: without it two networks could
// get one subnet.
//
// Errors are ErrIO.
func (s *Book) List() ([]Held, error) {
	d, err := pooldir.Open(s.path())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return readBook(d)
}

func (s *Book) dataDir() string {
	if s.DataDir == "" {
		return pooldir.DefaultDataDir
	}
	return s.DataDir
}

func (s *Book) path() string { return filepath.Join(s.dataDir(), pooldir.IndexDir, bookDir) }

// change replaces the book by what fn makes of it, with the lock held.
func (s *Book) change(ctx context.Context, fn func([]Held) ([]Held, error)) error {
	timeout := s.LockTimeout
	if timeout == 0 {
		timeout = pooldir.DefaultLockTimeout
	}
	if err := os.MkdirAll(s.dataDir(), 0o755); err != nil {
		return pooldir.Failure("make", s.dataDir(), errors.Unwrap(err))
	}
	if err := os.MkdirAll(s.path(), 0o700); err != nil {
		return pooldir.Failure("make", s.path(), errors.Unwrap(err))
	}
	d, err := pooldir.Open(s.path())
	if err != nil {
		return err
	}
	defer d.Close()
	lock, err := pooldir.Lock(ctx, d, timeout)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(lock) }()
	_ = unix.Unlinkat(d.Fd, pooldir.Draft, 0) // of a process that was killed
	old, err := readBook(d)
	if err != nil {
		return err
	}
	book, err := fn(old)
	if err != nil || slices.Equal(old, book) {
		return err
	}
	return writeBook(d, book)
}

func heldBy(book []Held, network string, ipv6 bool) netip.Prefix {
	for _, h := range book {
		if h.Network == network && h.Subnet.Addr().Is6() == ipv6 {
			return h.Subnet
		}
	}
	return netip.Prefix{}
}

// readBook reads the book; a missing or empty one has no entries.
func readBook(d pooldir.Dir) ([]Held, error) {
	data, st, err := d.Read(bookFile, bookLimit)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, d.Fail("read", bookFile, err)
	}
	if st.Size > bookLimit {
		return nil, d.Fail("read", bookFile, errors.New("is larger than 16 MiB"))
	}
	var book []Held
	for line := range strings.Lines(string(data)) {
		name, subnet, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		p, err := netip.ParsePrefix(subnet)
		if err != nil || p != p.Masked() || !pooldir.ValidName(name) || !strings.HasSuffix(line, "\n") {
			return nil, d.Fail("read", bookFile, fmt.Errorf(`line %d, %.80q, is not "<network> <subnet>"; mend it, or remove the file to forget which subnets were chosen`, len(book)+1, line))
		}
		book = append(book, Held{name, p})
	}
	return book, nil
}

func writeBook(d pooldir.Dir, book []Held) error {
	sorting.Stable(book, func(a, b Held) int { return a.Subnet.Addr().Compare(b.Subnet.Addr()) })
	var data []byte
	for _, h := range book {
		data = fmt.Appendf(data, "%s %s\n", h.Network, h.Subnet)
	}
	return d.ReplaceSynced(bookFile, data)
}
