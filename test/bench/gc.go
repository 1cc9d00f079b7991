package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"time"

	"github.com/vishvananda/netlink"
)

// manyDead is how many attachments a GC removes.
const manyDead = 1000

// collections times the GC of attachments that are all dead to the runtime, and beside it what of
// that the kernel alone takes.
func collections(r *report, n int) error {
	var ours, kernel durations
	for range max(1, n/10) {
		for _, way := range []struct {
			remove func(*chain) (time.Duration, error)
			into   *durations
		}{{(*chain).collect, &ours}, {(*chain).deleteGroup, &kernel}} {
			d, err := collection(way.remove)
			if err != nil {
				return err
			}
			*way.into = append(*way.into, d)
		}
	}
	r.limit(fmt.Sprintf("GC of %d dead attachments", manyDead), "≤ 0.4 s", ours.percentile(50).Seconds(), .4, ours.ms(50)+" ms")
	r.limit("", "by the kernel alone, one request for their links", 0, 0, kernel.ms(50)+" ms")
	return nil
}

// collection is one of them, in a world of its own.
func collection(remove func(*chain) (time.Duration, error)) (took time.Duration, err error) {
	chains, err := newChains([]contestant{{nameOurs, oursFull, 0}})
	if err != nil {
		return 0, err
	}
	c := chains[0]
	reached, err := c.populate(manyDead)
	if err == nil && !reached {
		err = fmt.Errorf("%d attachments take longer than %s", manyDead, populateLimit)
	}
	if err == nil {
		err = c.w.do(func() (err error) {
			took, err = remove(c)
			return err
		})
	}
	return took, errors.Join(err, closeAll([]*world{c.w}))
}

// deleteGroup has the kernel remove the links of all attachments by one request. That they are
// brought into a group is not timed.
func (c *chain) deleteGroup() (time.Duration, error) {
	const group = 4711
	links, err := netlink.LinkList()
	if err != nil {
		return 0, err
	}
	for _, l := range links {
		if l.Attrs().MasterIndex == 0 {
			continue
		}
		if err := netlink.LinkSetGroup(l, group); err != nil {
			return 0, err
		}
	}
	start := time.Now()
	out, err := exec.Command("ip", "link", "delete", "group", strconv.Itoa(group)).CombinedOutput()
	took := time.Since(start)
	if err != nil {
		return took, fmt.Errorf("ip link delete group: %w: %s", err, out)
	}
	return took, nil
}

// collect calls GC of the chain's first plugin: libcni would have a DEL for each attachment come
// first.
func (c *chain) collect() (time.Duration, error) {
	var conf map[string]any
	if err := json.Unmarshal(c.list.Plugins[0].Bytes, &conf); err != nil {
		return 0, err
	}
	conf["cniVersion"], conf["name"], conf["cni.dev/valid-attachments"] = "1.1.0", c.list.Name, []string{}
	stdin, err := json.Marshal(conf)
	if err != nil {
		return 0, err
	}
	cmd := exec.Command(binary(c.list.Plugins[0].Network.Type))
	cmd.Stdin = bytes.NewReader(stdin)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "CNI_COMMAND=GC", "CNI_PATH=" + os.Getenv("BIN")}
	start := time.Now()
	out, err := cmd.CombinedOutput()
	took := time.Since(start)
	if err != nil {
		return took, fmt.Errorf("GC: %w: %s", err, out)
	}
	return took, nil
}
