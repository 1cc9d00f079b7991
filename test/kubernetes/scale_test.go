package kubernetes

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// Bounds for an agent in a cluster of many Nodes. They are far above the figures of a machine that does
// nothing else, which the test prints.
const (
	manyNodes  = 1000
	mostMemory = 64 << 20 // bytes
	mostCold   = 20 * time.Second
	mostOne    = 2 * time.Second
	// Of one CPU: while each Node renews its Lease within 10 s, as kubelet does, and while the status of
	// each is written once in that time, which kubelet does every 5 minutes.
	mostOfLeases, mostOfStatuses = 0.01, 0.1
)

// each calls one for each fake Node but the last, several at once, and reports errors.
func (p *plane) each(t *testing.T, one func(i int) error) {
	t.Helper()
	work := make(chan int)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := range work {
				if err := one(i); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for i := range manyNodes - 1 {
		work <- i
	}
	close(work)
	wg.Wait()
}

// manyOne creates a Node as large as a real one, which has announced itself as m1 did.
func (p *plane) manyOne(t *testing.T, i int, announced string) error {
	address := fmt.Sprintf("172.31.%d.%d", 100+i/250, i%250+1)
	node := nodeOf(fake(i), address, fmt.Sprintf("10.%d.%d.0/24", 64+(i+10)/256, (i+10)%256))
	node["metadata"].(object)["annotations"] = object{overlayAnnotation: strings.ReplaceAll(announced, "172.31.9.1", address)}
	status := node["status"].(object)
	status["conditions"] = conditions(time.Now())
	var images []object
	for n := range 50 { // as many as kubelet reports
		name := fmt.Sprintf("registry.example.com/some/team/some-service-%d", n)
		images = append(images, object{"names": []string{fmt.Sprintf("%s@sha256:%064x", name, n), name + ":v1.2.3"}, "sizeBytes": 123456789})
	}
	status["images"] = images
	return p.send(t, http.MethodPost, "/api/v1/nodes", asJSON, node, http.StatusCreated)
}

func conditions(now time.Time) (all []object) {
	for _, kind := range []string{"MemoryPressure", "DiskPressure", "PIDPressure", "Ready"} {
		all = append(all, object{"type": kind, "status": "True", "reason": "KubeletHas", "message": "kubelet is posting a status", "lastHeartbeatTime": now.UTC().Format(time.RFC3339)})
	}
	return all
}

// beat has every Node send something once within a time, and returns the agent's part of a CPU.
func (p *plane) beat(t *testing.T, pid int, within time.Duration, send func(i int) error) float64 {
	t.Helper()
	before, start := cpu(t, pid), time.Now()
	tick := time.NewTicker(within / manyNodes)
	defer tick.Stop()
	var wg sync.WaitGroup
	for i := range manyNodes - 1 {
		<-tick.C
		wg.Go(func() {
			if err := send(i); err != nil {
				t.Errorf("heartbeat %d: %v", i, err)
			}
		})
	}
	wg.Wait()
	return (cpu(t, pid) - before).Seconds() / time.Since(start).Seconds()
}

// send sends an object, which has to be answered with a code.
func (p *plane) send(t *testing.T, method, path, contentType string, body object, want int) error {
	t.Helper()
	data, err := json.Marshal(body)
	if err != nil {
		return err
	}
	code, answer, err := p.try(t.Context(), adminToken, method, path, contentType, data)
	if err == nil && code != want {
		err = fmt.Errorf("%d %s", code, answer)
	}
	return err
}

const (
	asStrategic = "application/strategic-merge-patch+json"
	leases      = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
)

// newLease makes the Lease by which kubelet says that a Node lives.
func (p *plane) newLease(t *testing.T, i int) error {
	return p.send(t, http.MethodPost, leases, asJSON, object{
		"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": object{"name": fake(i), "namespace": "kube-node-lease"},
		"spec": object{"holderIdentity": fake(i), "leaseDurationSeconds": 40},
	}, http.StatusCreated)
}

func (p *plane) renew(t *testing.T, i int) error {
	return p.send(t, http.MethodPatch, leases+"/"+fake(i), asStrategic, object{"spec": object{"renewTime": time.Now().UTC().Format("2006-01-02T15:04:05.000000Z")}}, http.StatusOK)
}

func (p *plane) writeStatus(t *testing.T, i int) error {
	return p.send(t, http.MethodPatch, "/api/v1/nodes/"+fake(i)+"/status", asStrategic, object{"status": object{"conditions": conditions(time.Now().Add(time.Hour))}}, http.StatusOK)
}

func fake(i int) string { return fmt.Sprintf("fake-%04d", i) }

// An agent copes with 1000 Nodes: it knows them soon, one more sooner, and heartbeats cost it nearly
// nothing.
func TestManyNodes(t *testing.T) {
	p := newPlane(t)
	p.addNode(t, "m1", "172.31.9.1", "10.64.1.0/24")
	h := newHost(t, p, "m1", "172.31.9.1", adminToken)
	h.subnets = `["10.64.0.0/12"]`
	h.configure(t, "")
	h.startAgent(t)
	h.healthy(t)
	announced := p.annotation(t, "m1", overlayAnnotation)
	h.killAgent(t)
	p.each(t, func(i int) error { return p.manyOne(t, i, announced) })
	p.each(t, func(i int) error { return p.newLease(t, i) })

	start := time.Now()
	h.startAgent(t)
	eventually(t, "the agent knows all Nodes", func() bool { return len(h.nodes()) == manyNodes })
	cold := time.Since(start)
	h.healthy(t)

	start = time.Now()
	check(t, p.manyOne(t, manyNodes, announced))
	eventually(t, "the agent knows one more", func() bool { return len(h.nodes()) == manyNodes+1 })
	one := time.Since(start)

	pid := h.agent.Process.Pid
	changes := h.changes(t)
	eventually(t, "the agent has nothing left to do", func() bool { // it looks once more at what it has changed itself
		last := changes
		time.Sleep(2 * time.Second)
		changes = h.changes(t)
		return changes == last
	})
	const within = 10 * time.Second
	ofLeases := p.beat(t, pid, within, func(i int) error { return p.renew(t, i) })
	ofStatuses := p.beat(t, pid, within, func(i int) error { return p.writeStatus(t, i) })
	check(t, p.manyOne(t, manyNodes+1, announced))
	eventually(t, "the agent still hears of Nodes", func() bool { return len(h.nodes()) == manyNodes+2 })
	now, peak := memory(t, pid, "VmRSS"), memory(t, pid, "VmHWM")
	t.Logf("%d Nodes: known after %.2f s, one more after %.0f ms; of a CPU, %.1f %% while each renews its Lease within %s, %.1f %% while the status of each is written; %d MiB, at most %d MiB",
		manyNodes, cold.Seconds(), one.Seconds()*1000, ofLeases*100, within, ofStatuses*100, now>>20, peak>>20)
	if looks := h.changes(t) - changes; looks > 2 { // for the last Node, and once a minute in any case
		t.Errorf("the agent looked at the kernel %d times under heartbeats", looks)
	}
	if cold > mostCold || one > mostOne || ofLeases > mostOfLeases || ofStatuses > mostOfStatuses || now > mostMemory {
		t.Errorf("want %s, %s, %.0f %%, %.0f %% and %d MiB at most", mostCold, mostOne, mostOfLeases*100, mostOfStatuses*100, mostMemory>>20)
	}
}

// changes counts how often the agent has looked at the kernel.
func (h *host) changes(t *testing.T) int {
	t.Helper()
	for line := range strings.Lines(h.get("/metrics")) {
		if count, is := strings.CutPrefix(line, "libnet_agent_reconcile_seconds_count "); is {
			n, err := strconv.ParseFloat(strings.TrimSpace(count), 64)
			check(t, err)
			return int(n)
		}
	}
	t.Fatal("the agent has no metric of how often it reconciled")
	return 0
}

// cpu is what a process has used.
func cpu(t *testing.T, pid int) time.Duration {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	check(t, err)
	_, rest, _ := strings.Cut(string(data), ") ")
	fields := strings.Fields(rest)
	const user, system, tick = 11, 12, 10 * time.Millisecond
	var all time.Duration
	for _, i := range []int{user, system} {
		n, err := strconv.Atoi(fields[i])
		check(t, err)
		all += time.Duration(n) * tick
	}
	return all
}

// memory is a line of a process's status, in bytes.
func memory(t *testing.T, pid int, key string) int {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	check(t, err)
	for line := range strings.Lines(string(data)) {
		if value, is := strings.CutPrefix(line, key+":"); is {
			n, err := strconv.Atoi(strings.Fields(value)[0])
			check(t, err)
			return n << 10
		}
	}
	t.Fatalf("no %s in the status of process %d", key, pid)
	return 0
}
