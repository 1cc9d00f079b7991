package subnets

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"net/netip"
	"slices"
	"strconv"

	"github.com/libnet-cni/libnet/internal/plain"
	"github.com/libnet-cni/libnet/internal/pooldir"
)

// DefaultPoolsFile is the node-wide list of address pools, as
// [{"base": "10.200.0.0/16", "size": 24}].
const DefaultPoolsFile = "/etc/cni/ln/address-pools.json"

// DefaultPools returns Docker's pools: 15 IPv4 networks of /16 in
// 172.17.0.0 to 172.31.255.255 and 16 of /20 in 192.168.0.0/16. For IPv6 it is
// a unique local /48 (RFC 4193) that gives /64s, the host's own: its 40 random
// bits are a hash of /etc/machine-id, so it is the same after a reboot. Hosts
// cloned with their machine-id share it; a host without one has no IPv6 pool.
func DefaultPools() []Pool {
	id, _ := plain.ReadFile("/etc/machine-id") // missing: no IPv6 pool
	return defaultPools(id)
}

func defaultPools(machineID []byte) []Pool {
	var pools []Pool
	for _, p := range []struct {
		base string
		size int
	}{
		{"172.17.0.0/16", 16}, {"172.18.0.0/16", 16}, {"172.19.0.0/16", 16},
		{"172.20.0.0/14", 16}, {"172.24.0.0/14", 16}, {"172.28.0.0/14", 16},
		{"192.168.0.0/16", 20},
	} {
		pools = append(pools, Pool{netip.MustParsePrefix(p.base), p.size})
	}
	if id := bytes.TrimSpace(machineID); len(id) > 0 && !bytes.Equal(id, []byte("uninitialized")) {
		pools = append(pools, Pool{ulaOf(id), 64})
	}
	return pools
}

// ulaOf derives a /48. machine-id(5) asks that the ID itself shows nowhere: of
// its 128 bits a hash of 40 remains.
func ulaOf(machineID []byte) netip.Prefix {
	h := fnv.New128a()
	_, _ = h.Write([]byte("libnet address pool\x00"))
	_, _ = h.Write(machineID)
	var a [16]byte
	a[0] = 0xfd
	copy(a[1:6], h.Sum(nil)[11:])
	return netip.PrefixFrom(netip.AddrFrom16(a), 48)
}

// LoadPools returns the pools that a file lists; "" is DefaultPoolsFile.
// A family without a pool in it has the default ones, and so has a missing
// file. A pool with a wrong value is a *ConfigError, a file that cannot be read
// ErrIO.
func LoadPools(path string) ([]Pool, error) {
	if path == "" {
		path = DefaultPoolsFile
	}
	data, err := plain.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return DefaultPools(), nil
	}
	if err != nil {
		return nil, pooldir.Failure("read", path, errors.Unwrap(err))
	}
	pools, err := parsePools(data)
	if err != nil {
		return nil, fmt.Errorf("address pools in %s: %w", path, err)
	}
	return append(pools, slices.DeleteFunc(DefaultPools(), func(d Pool) bool {
		return slices.ContainsFunc(pools, func(p Pool) bool { return p.Base.Addr().Is6() == d.Base.Addr().Is6() })
	})...), nil
}

func parsePools(data []byte) ([]Pool, error) {
	var list []json.RawMessage
	if err := json.Unmarshal(data, &list); err != nil {
		msg := `must be a JSON list as [{"base": "10.200.0.0/16", "size": 24}]`
		if syntax := new(json.SyntaxError); errors.As(err, &syntax) {
			msg += fmt.Sprintf(": %v at byte %d", err, syntax.Offset)
		}
		return nil, badConfig("addressPools", fmt.Sprintf("%.80s", bytes.TrimSpace(data)), msg)
	}
	var pools []Pool
	for i, raw := range list {
		p, err := parsePool(fmt.Sprintf("addressPools[%d]", i), raw)
		if err != nil {
			return nil, err
		}
		pools = append(pools, p)
	}
	return pools, nil
}

func parsePool(key string, raw []byte) (Pool, error) {
	var in struct {
		Base json.RawMessage
		Size json.RawMessage
	}
	if err := json.Unmarshal(raw, &in); err != nil {
		return Pool{}, badConfig(key, string(raw), `must be an object as {"base": "10.200.0.0/16", "size": 24}`)
	}
	var base string
	_ = json.Unmarshal(in.Base, &base) // of another type: no prefix
	p, err := netip.ParsePrefix(base)
	if err != nil || p.Addr().Is4In6() {
		return Pool{}, badConfig(key+".base", shown(in.Base), `must be a prefix as "10.200.0.0/16" or "fd00:1::/48"`)
	}
	if p != p.Masked() {
		return Pool{}, badConfig(key+".base", base, "has host bits set; the network is "+p.Masked().String())
	}
	size, err := strconv.Atoi(string(in.Size))
	if most := p.Addr().BitLen() - 2; err != nil || size < p.Bits() || size > most {
		return Pool{}, badConfig(key+".size", shown(in.Size), fmt.Sprintf("must be a prefix length from %d, the base's own, to %d", p.Bits(), most))
	}
	return Pool{p, size}, nil
}

// shown is a JSON value as a ConfigError quotes it.
func shown(raw json.RawMessage) string {
	if raw == nil {
		return "missing"
	}
	return string(bytes.Trim(raw, `"`))
}
