package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"time"
)

// oneShot is a process that is started with something to read.
type oneShot struct {
	name, binary, verb, stdin string
	w                         *world
	took                      durations
}

// cycle runs it once.
func (s *oneShot) cycle() error {
	return s.w.do(func() error {
		cmd := exec.Command(s.binary)
		cmd.Env = append(os.Environ(), "CNI_COMMAND="+s.verb, "CNI_CONTAINERID=timed-0", "CNI_NETNS=/run/netns/timed",
			"CNI_IFNAME=eth0", "CNI_PATH="+os.Getenv("BIN")+":"+os.Getenv("TOOLS"))
		cmd.Stdin = bytes.NewReader([]byte(s.stdin))
		start := time.Now()
		out, err := cmd.Output()
		s.took = append(s.took, time.Since(start))
		if err != nil {
			return fmt.Errorf("%s %s: %w: %s", s.binary, s.verb, err, out)
		}
		return nil
	})
}

// small times STATUS, VERSION and CHECK as whole processes beside one that does nothing.
func small(r *report, chains []*chain, n int) error {
	ours, theirs := chains[0], chains[2]
	empty := &oneShot{name: "an empty Go program", binary: tool("empty"), w: ours.w}
	all := []*oneShot{empty}
	for _, p := range []struct {
		c      *chain
		plugin string
	}{{ours, "bridge-ln"}, {theirs, "bridge"}} {
		conf, err := p.c.pluginConf()
		if err != nil {
			return err
		}
		check, err := p.c.checkConf()
		if err != nil {
			return err
		}
		for verb, stdin := range map[string]string{"VERSION": `{"cniVersion":"1.1.0"}`, "STATUS": conf, "CHECK": check} {
			all = append(all, &oneShot{p.plugin + " " + verb, binary(p.plugin), verb, stdin, p.c.w, nil})
		}
	}
	for _, verb := range []string{"VERSION", "STATUS"} {
		conf := `{"cniVersion":"1.1.0","name":"bench","type":"portmap-ln"}`
		all = append(all, &oneShot{"portmap-ln " + verb, binary("portmap-ln"), verb, conf, ours.w, nil})
	}
	var turn []cycler
	for _, s := range all {
		turn = append(turn, s)
	}
	if err := runRounds(5*n, turn); err != nil {
		return err
	}
	smallTable(r, all, empty)
	return nil
}

func smallTable(r *report, all []*oneShot, empty *oneShot) {
	t := &table{columns: []string{"ms", "p50", "p99", "/ an empty Go program"}}
	most := map[string]float64{"VERSION": .002, "STATUS": .003, "CHECK": .004}
	for _, s := range all {
		t.row(s.name, s.took.ms(50), s.took.ms(99), short(ratio(s.took, empty.took, 50)))
		if s.binary != binary("bridge-ln") {
			continue
		}
		r.limit(s.name+", whole process", fmt.Sprintf("≤ %g ms", most[s.verb]*1000), s.took.percentile(50).Seconds(), most[s.verb], s.took.ms(50)+" ms")
		if s.verb != "CHECK" {
			x := ratio(s.took, empty.took, 50)
			r.limit("", "≤ 2 × an empty Go program", x, 2, short(x))
		}
	}
	t.print(r, fmt.Sprintf("whole processes, %d times", len(empty.took)))
}

// pluginConf is what libcni gives the first plugin of the chain.
func (c *chain) pluginConf() (string, error) {
	return c.inject(map[string]any{"cniVersion": "1.1.0"})
}

// checkConf attaches a container and returns what its CHECK reads.
func (c *chain) checkConf() (conf string, err error) {
	err = c.w.do(func() error {
		ct := container{id: "timed-0", netns: c.netns}
		if err := c.run("ADD", ct.runtime()); err != nil {
			return err
		}
		result, err := c.cni.GetNetworkListCachedResult(c.list, ct.runtime())
		if err != nil {
			return err
		}
		conf, err = c.inject(map[string]any{"prevResult": result})
		return err
	})
	return conf, err
}

// inject adds keys to the first plugin's configuration.
func (c *chain) inject(keys map[string]any) (string, error) {
	conf := map[string]any{}
	if err := json.Unmarshal(c.list.Plugins[0].Bytes, &conf); err != nil {
		return "", err
	}
	conf["name"], conf["cniVersion"] = c.list.Name, c.list.CNIVersion
	for key, value := range keys {
		conf[key] = value
	}
	text, err := json.Marshal(conf)
	return string(text), err
}

// sizes lists the binaries.
func sizes(r *report) error {
	t := &table{columns: []string{"binary", "MB"}}
	size := func(plugins ...string) (sum float64, err error) {
		for _, p := range plugins {
			info, err := os.Stat(binary(p))
			if err != nil {
				return 0, err
			}
			mb := float64(info.Size()) / 1e6
			sum += mb
			t.row(p, fmt.Sprintf("%.2f", mb))
		}
		t.row("together", fmt.Sprintf("%.2f", sum))
		return sum, nil
	}
	ours := []string{"bridge-ln", "ipam-ln", "portmap-ln"}
	want := "≤ 16 MB (three: overlay-ln is not there yet)"
	if exists(binary("overlay-ln")) {
		ours, want = append(ours, "overlay-ln"), "≤ 16 MB"
	}
	sum, err := size(ours...)
	if err != nil {
		return err
	}
	if _, err := size("bridge", "host-local", "portmap", "firewall"); err != nil {
		return err
	}
	t.print(r, "sizes, static and stripped")
	r.limit("the stripped plugins together", want, sum, 16, fmt.Sprintf("%.2f MB", sum))
	return nil
}
