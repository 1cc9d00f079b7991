package netpolicy

import (
	"maps"
	"reflect"
	"slices"
	"strings"

	networkingv1 "k8s.io/api/networking/v1"
)

// Compiler knows the cluster as policies see it. It is for one goroutine.
type Compiler struct {
	matching
	pods     map[Key]*member
	local    map[Key]*member // pods of this node
	peers    peerIndex
	policies map[string]map[string]*policy // by namespace and name
	classes  interner
	blockIDs interner
	profiles interner
}

// member is a pod, and the group it belongs to.
type member struct {
	Pod
	group *group
	held  []holding // of each address, once peers were found
}

// New returns a Compiler of an empty cluster.
func New() *Compiler {
	return &Compiler{
		matching: newMatching(), pods: map[Key]*member{}, local: map[Key]*member{}, peers: newPeerIndex(), policies: map[string]map[string]*policy{},
		classes: newInterner(), blockIDs: newInterner(), profiles: newInterner(),
	}
}

// SetNamespace takes the labels of a namespace over; nil: it is gone. It says whether that is news.
func (c *Compiler) SetNamespace(name string, labels map[string]string) (news bool) {
	before, there := c.spaces[name]
	if there == (labels != nil) && maps.Equal(before, labels) {
		return false
	}
	c.setSpace(name, labels)
	return true
}

// SetPod takes a pod over, and says whether that is news.
func (c *Compiler) SetPod(p Pod) (news bool) {
	before := c.pods[p.Key]
	if before != nil && reflect.DeepEqual(before.Pod, p) {
		return false
	}
	now := &member{Pod: p, group: c.join(p.Namespace, p.Labels)}
	if before != nil {
		c.forget(before)
	}
	c.peers.fresh[now], c.pods[p.Key] = true, now
	if p.Local {
		c.local[p.Key] = now
	}
	return true
}

// DeletePod forgets a pod, and says whether that is news.
func (c *Compiler) DeletePod(k Key) (news bool) {
	before := c.pods[k]
	if before == nil {
		return false
	}
	c.forget(before)
	return true
}

// forget has a pod be known no more.
func (c *Compiler) forget(m *member) {
	c.leave(m.group)
	c.peers.forget(m)
	delete(c.pods, m.Key)
	delete(c.local, m.Key)
}

// SetPolicy takes a policy over. The error says what of it cannot be read, which then allows
// nothing; with a podSelector that cannot be read the policy is as if it were not there.
func (c *Compiler) SetPolicy(from *networkingv1.NetworkPolicy) error {
	p, err := c.read(from)
	c.DeletePolicy(Key{from.Namespace, from.Name})
	if p == nil {
		return err
	}
	if c.policies[from.Namespace] == nil {
		c.policies[from.Namespace] = map[string]*policy{}
	}
	c.policies[from.Namespace][from.Name] = p
	return err
}

// DeletePolicy forgets a policy, and says whether it was there.
func (c *Compiler) DeletePolicy(k Key) (was bool) {
	p := c.policies[k.Namespace][k.Name]
	if p == nil {
		return false
	}
	p.drop(&c.matching)
	delete(c.policies[k.Namespace], k.Name)
	if len(c.policies[k.Namespace]) == 0 {
		delete(c.policies, k.Namespace)
	}
	return true
}

// Judges says whether a namespace has a policy: a pod of another one is not isolated, whatever its
// labels are.
func (c *Compiler) Judges(namespace string) bool { return len(c.policies[namespace]) > 0 }

// Pods are how many there are.
func (c *Compiler) Pods() int { return len(c.pods) }

// Policies are how many there are.
func (c *Compiler) Policies() (n int) {
	for _, of := range c.policies {
		n += len(of)
	}
	return n
}

// inForce are the policies of a direction that select a pod, in order.
func (c *Compiler) inForce(m *member, d direction) (all []*policy) {
	for _, p := range c.policies[m.Namespace] {
		if p.applies[d] && m.group.matched.has(p.target.id) {
			all = append(all, p)
		}
	}
	slices.SortFunc(all, func(a, b *policy) int { return strings.Compare(a.key.Name, b.key.Name) })
	return all
}

// interner gives texts numbers, which stay while the text is in use.
type interner struct {
	last      Class
	now, next map[string]interned
}

// interned has the text, so that one that stays is not copied.
type interned struct {
	text string
	id   Class
}

func newInterner() interner { return interner{now: map[string]interned{}} }

// begin begins a compilation: what is not asked for until end is forgotten.
func (i *interner) begin() { i.next = make(map[string]interned, len(i.now)) }

// of returns the number of a text, which is not 0.
func (i *interner) of(text []byte) Class {
	if known, there := i.next[string(text)]; there {
		return known.id
	}
	known, there := i.now[string(text)]
	if !there {
		i.last++
		known = interned{string(text), i.last}
	}
	i.next[known.text] = known
	return known.id
}

// keep keeps the number that a text has had since the last compilation, or before.
func (i *interner) keep(text string) { i.next[text] = i.now[text] }

func (i *interner) end() { i.now, i.next = i.next, nil }
