package main

import (
	"bytes"
	"errors"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// floor is the contestant that makes the kernel's requests and nothing else.
type floor struct {
	w              *world
	netns          string
	calls          int
	add, del       durations // whole processes
	addReq, delReq durations // the requests alone
	delVeth        durations // of these, the removal of the veth
}

// floorTable has as many sets of the same types as an attachment of ours uses.
const floorTable = `table inet floor {
	set masq { type ipv4_addr; }
	set home { type ipv4_addr . ifname; }
	set hairpin { type ipv4_addr . ifname; }
	map port { type inet_proto . inet_service : ipv4_addr . inet_service; }
}`

func newFloor() (*floor, error) {
	w, err := newWorld()
	if err != nil {
		return nil, err
	}
	f := &floor{w: w}
	return f, w.do(func() (err error) {
		if f.netns, err = newNetns("timed"); err != nil {
			return err
		}
		nft := exec.Command("nft", "-f", "-")
		nft.Stdin = strings.NewReader(floorTable)
		if out, err := nft.CombinedOutput(); err != nil {
			return fmt.Errorf("nft: %w: %s", err, out)
		}
		return makeBridge("floor0", "10.99.0.1/16")
	})
}

// cycle is one ADD and one DEL.
func (f *floor) cycle() error {
	f.calls++
	return f.w.do(func() error {
		add, addReq, _, addErr := f.call("add")
		del, delReq, veth, delErr := f.call("del")
		f.add, f.del = append(f.add, add), append(f.del, del)
		f.addReq, f.delReq, f.delVeth = append(f.addReq, addReq), append(f.delReq, delReq), append(f.delVeth, veth)
		return errors.Join(addErr, delErr)
	})
}

func (f *floor) call(verb string) (whole, requests, veth time.Duration, err error) {
	cmd := exec.Command(tool("floor"), verb, f.netns, strconv.Itoa(timedPort))
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	start := time.Now()
	out, err := cmd.Output()
	whole = time.Since(start)
	if err != nil {
		return 0, 0, 0, fmt.Errorf("floor: %s: %w: %s", verb, err, stderr.String())
	}
	_, err = fmt.Sscan(string(out), &requests, &veth)
	return whole, requests, veth, err
}

// forget drops the times so far.
func (f *floor) forget() { f.add, f.del, f.addReq, f.delReq, f.delVeth = nil, nil, nil, nil, nil }
