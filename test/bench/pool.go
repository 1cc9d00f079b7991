package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	poolDir   = "/var/lib/cni/bench"
	poolNetns = netnsDir + "/bench-pool"
	poolSize  = 1<<16 - 3 // a /16 without network, gateway and broadcast address
)

// firstAddr is the first address of each pool that is given away.
var firstAddr = netip.AddrFrom4([4]byte{10, 63, 0, 2})

// pool is an IPAM plugin with a directory of its own, and the times the plugin
// took. No other program writes to the directory, so the plugin's index, if it
// has one, stays up to date.
type pool struct {
	*plugin
	add, del durations
	dir      string
	held     int           // leases there are beside those that are timed
	pairs    int           // how many there have been
	both     durations     // ADD and DEL
	first    time.Duration // the first call after the directory was filled
	perRound int           // how many pairs a round has
}

// emptyPool is a pool whose directory does not exist yet.
func emptyPool(name, kind, network, subnet string) *pool {
	conf := fmt.Sprintf(`{"cniVersion":"1.0.0","name":%q,"type":"bridge",
		"ipam":{"type":%q,"dataDir":%q,"ranges":[[{"subnet":%q}]]}}`, network, kind, poolDir, subnet)
	return &pool{
		plugin:   &plugin{name: name, binary: binary(kind), conf: conf},
		dir:      filepath.Join(poolDir, network),
		perRound: perRound,
	}
}

// newPool fills a directory with leases and calls the plugin once.
func newPool(name, kind string, held int) (*pool, error) {
	p := emptyPool(name, kind, fmt.Sprintf("%s-%d", kind, held), "10.63.0.0/16")
	if err := p.fill(held); err != nil {
		return nil, err
	}
	if err := p.pair(); err != nil {
		return nil, err
	}
	p.first = p.add[0]
	p.add, p.del, p.both = nil, nil, nil
	return p, nil
}

// fill writes lease files, up to held of them, as host-local does: the
// addresses in turn, and the last one noted.
func (p *pool) fill(held int) error {
	if err := os.MkdirAll(p.dir, 0o755); err != nil {
		return err
	}
	addr := firstAddr
	var last netip.Addr
	for i := range held {
		if i >= p.held {
			lease := fmt.Sprintf("%064x\r\neth0", i)
			if err := os.WriteFile(filepath.Join(p.dir, addr.String()), []byte(lease), 0o600); err != nil {
				return err
			}
		}
		last, addr = addr, addr.Next()
	}
	p.held = held
	if held == 0 {
		return nil
	}
	return os.WriteFile(filepath.Join(p.dir, "last_reserved_ip.0"), []byte(last.String()), 0o600)
}

// pair times one ADD and its DEL.
func (p *pool) pair() error {
	id := fmt.Sprintf("bench-%d", p.pairs)
	p.pairs++
	add, err := p.call("ADD", id, poolNetns)
	if err != nil {
		return fmt.Errorf("%s: %w", p.dir, err)
	}
	del, err := p.call("DEL", id, poolNetns)
	if err != nil {
		return fmt.Errorf("%s: %w", p.dir, err)
	}
	p.add, p.del, p.both = append(p.add, add), append(p.del, del), append(p.both, add+del)
	return nil
}

// exhaustion is what a full pool answers to ADD.
type exhaustion struct {
	first time.Duration // the first call after the directory was filled
	times durations
	code  int
	msg   string // its beginning
}

func (e exhaustion) String() string {
	return fmt.Sprintf("p50 %s ms, max %s ms in %d calls, %s ms in the first one; code %d: %s",
		e.times.ms(50), e.times.ms(100), len(e.times), durations{e.first}.ms(50), e.code, e.msg)
}

// fullPool is a /22 whose every address the plugin itself gave to the same,
// living network namespace. A /16 would take minutes.
func fullPool(name, kind string) (*pool, error) {
	p := emptyPool(name, kind, kind+"-full", "10.63.0.0/22")
	for p.held < 1<<10-3 {
		if _, err := p.call("ADD", fmt.Sprintf("%064x", p.held), poolNetns); err != nil {
			return nil, fmt.Errorf("%s: %w", p.dir, err)
		}
		p.held++
	}
	return p, nil
}

// exhaust asks a full pool for one address more, times times and once before.
func (p *pool) exhaust(times int) (exhaustion, error) {
	var out exhaustion
	for i := range times + 1 {
		took, stdout, err := p.run("ADD", "bench-one-too-many", poolNetns)
		if err == nil {
			return out, fmt.Errorf("%s: ADD to a full pool succeeds: %s", p.dir, stdout)
		}
		if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) {
			return out, fmt.Errorf("%s: ADD to a full pool: %w", p.dir, err)
		}
		if i == 0 {
			out.first = took
		} else {
			out.times = append(out.times, took)
		}
		var answer struct {
			Code         int
			Msg, Details string
		}
		if err := json.Unmarshal(stdout, &answer); err != nil {
			return out, fmt.Errorf("%s: ADD to a full pool: %w: %s", p.dir, err, stdout)
		}
		out.code = answer.Code
		out.msg = shorten(answer.Msg)
	}
	return out, nil
}

// shorten is the beginning of an error message.
func shorten(msg string) string {
	const most = 150
	if len(msg) > most {
		return msg[:most] + "…"
	}
	return msg
}

// fsName names the file system of the directories.
func fsName() (string, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(poolDir, &st); err != nil {
		return "", err
	}
	if st.Type == unix.TMPFS_MAGIC {
		return "tmpfs", nil
	}
	return fmt.Sprintf("file system %#x", st.Type), nil
}

// plugin is one that is called by itself, not in a chain.
type plugin struct{ name, binary, conf string }

// call runs the plugin once and returns how long the process took.
func (p *plugin) call(command, id, netns string) (time.Duration, error) {
	took, stdout, err := p.run(command, id, netns)
	if err != nil {
		return took, fmt.Errorf("%s: %w: %s", command, err, stdout)
	}
	return took, nil
}

// run is call, and returns the output, too.
func (p *plugin) run(command, id, netns string) (time.Duration, []byte, error) {
	var stdout bytes.Buffer
	cmd := exec.Command(p.binary)
	cmd.Env = []string{
		"CNI_COMMAND=" + command, "CNI_CONTAINERID=" + id, "CNI_NETNS=" + netns, "CNI_IFNAME=eth0",
		"CNI_PATH=" + strings.Join(pluginPath(), ":"), "PATH=" + os.Getenv("PATH"),
	}
	cmd.Stdin, cmd.Stdout = bytes.NewReader([]byte(p.conf)), &stdout
	start := time.Now()
	err := cmd.Run()
	return time.Since(start), stdout.Bytes(), err
}
