package kill

import (
	"slices"
	"strings"
	"testing"
)

// fewOfServices is the distance between the points of lnctl service that are tried, and
// leastOfServices that if LIBNET_KILL asks for all, which are some thousand.
const fewOfServices, leastOfServices = 97, 5

var lnctl = plugin{name: "lnctl"}

// operator is a bench on which lnctl is killed.
type operator struct{ *bench }

func (o *operator) lnctl(args string) error { return o.run(lnctl, call{args: strings.Fields(args)}, "", nil).err() }

// clean holds the host against what it was before the service.
func (o *operator) clean(where string) {
	o.t.Helper()
	now := o.snapshot().without(isKept)
	if !slices.Equal(o.before, now) {
		o.fail("%s: the host is not as before\n left:%s\n missing:%s", where, list(now.since(o.before)), list(o.before.since(now)))
		o.before = now
	}
}

// whole says what is wrong with the service.
func (o *operator) whole(where string, backends int) {
	o.t.Helper()
	if err := o.lnctl("doctor"); err != nil && strings.Contains(err.Error(), "service") {
		o.fail("%s: doctor: %v", where, err)
	}
	r := o.run(lnctl, call{args: strings.Fields("service inspect web --network kill")}, "", nil)
	if n := strings.Count(r.stdout, "weight 1"); r.err() != nil || n != backends {
		o.fail("%s: %d containers, want %d: %v %s", where, n, backends, r.err(), r.stdout)
	}
}

const (
	createWeb = "service create web --network kill --select alias=web --port 80:80/tcp --publish 8000:80"
	updateWeb = "service update web --network kill --port 80:80/tcp --port 81:81/udp --publish 8001:80 --publish 8000:81/udp"
	removeWeb = "service rm web --network kill"
	none      = "no such service"
)

// TestKillService kills lnctl before and after each system call, as it makes, changes and removes
// a service. The same command again, repair, gc or rm, in turn, bring it to its end: the service
// is whole or gone, and with it the host is as before.
func TestKillService(t *testing.T) {
	var aliased scenario
	for _, s := range scenarios() {
		if s.service {
			aliased = s
		}
	}
	aliased.service = false
	gone := func(err error) bool { return err != nil && strings.Contains(err.Error(), none) }
	for name, tt := range map[string]struct {
		before, killed string
		then           func(o *operator, n int, where string)
	}{
		"create": {"", createWeb, func(o *operator, n int, where string) {
			switch n / 2 % 4 {
			case 0:
				if err := o.lnctl(createWeb); err != nil && !strings.Contains(err.Error(), "exists") {
					o.fail("%s: create again: %v", where, err)
				} else if err != nil { // it had come far enough; containers may be missing
					o.check(o.lnctl("service update web --network kill"))
				}
				o.whole(where+", again", 2)
			case 1:
				o.check(o.lnctl("repair"))
				if o.lnctl("service inspect web --network kill") == nil {
					o.whole(where+", repaired", 2)
				}
			case 2:
				o.check(o.lnctl("gc"))
			}
		}},
		"update": {createWeb, updateWeb, func(o *operator, n int, where string) {
			if n/2%2 == 0 {
				if err := o.lnctl(updateWeb); err != nil {
					o.fail("%s: update again: %v", where, err)
				}
			} else {
				o.check(o.lnctl("repair"))
			}
			o.whole(where, 2)
		}},
		"rm": {createWeb, removeWeb, func(o *operator, n int, where string) {
			switch n / 2 % 4 {
			case 0:
				if err := o.lnctl(createWeb); err != nil && !strings.Contains(err.Error(), "exists") {
					o.fail("%s: create: %v", where, err)
				}
			case 1:
				o.check(o.lnctl("repair"))
			case 2:
				o.check(o.lnctl("gc"))
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := &operator{newBench(t, aliased)}
			_, err := o.withoutPorts().add(c1)
			o.check(err)
			for _, args := range []string{createWeb, updateWeb, removeWeb} { // what stays of the first one is before
				o.check(o.lnctl(args))
			}
			o.before = o.snapshot().without(isKept)
			var total count
			for n, by := 0, max(leastOfServices, step(t, fewOfServices)); ; n += by {
				if tt.before != "" {
					o.check(o.lnctl(tt.before))
				}
				var where string
				r := o.run(lnctl, call{args: strings.Fields(tt.killed)}, "", killAt(n, &total, &where))
				killed := where != ""
				where = tt.killed + " killed " + where
				if !killed {
					o.check(r.err())
				}
				tt.then(o, n, where)
				if err := o.lnctl(removeWeb); err != nil && !gone(err) {
					o.fail("%s: rm: %v", where, err)
				}
				o.clean(where)
				if !killed {
					break
				}
			}
			t.Logf("%s: %s, %d leftovers", name, total, o.bad)
		})
	}
}
