package netpolicy

import (
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// term is a selector of pods: of one namespace, or of those that a selector matches.
type term struct {
	id        int
	key       string
	namespace string          // its own; empty: by spaces
	spaces    labels.Selector // nil: by namespace
	pods      labels.Selector
	uses      int
}

// matches says whether the term selects pods with these labels.
func (t *term) matches(namespace string, space, pod labels.Set) bool {
	if t.spaces == nil {
		return t.namespace == namespace && t.pods.Matches(pod)
	}
	return t.spaces.Matches(space) && t.pods.Matches(pod)
}

// group are all pods of a namespace with the same labels: a term matches all of them or none.
type group struct {
	namespace string
	labels    labels.Set
	matched   bits // the terms that match, by id
	uses      int

	flipped bool   // matched is not what key was made of
	stale   bool   // key has changed since peers were found
	key     string // terms of rules in force that match: see keyOf
}

// bits is a set of small numbers.
type bits []uint64

const word = 64

func (b bits) has(i int) bool { return i/word < len(b) && b[i/word]&(1<<(i%word)) != 0 }

// word are those numbers that a word of the set has.
func (b bits) word(i int) uint64 {
	if i < len(b) {
		return b[i]
	}
	return 0
}

// meets says whether two sets have a number in common.
func (b bits) meets(o bits) bool {
	for i := range min(len(b), len(o)) {
		if b[i]&o[i] != 0 {
			return true
		}
	}
	return false
}

// xor are the numbers that only one of two sets has; nil: none.
func (b bits) xor(o bits) (all bits) {
	for i := range max(len(b), len(o)) {
		if x := b.word(i) ^ o.word(i); x != 0 {
			all = append(append(all, make(bits, i-len(all))...), x)
		}
	}
	return all
}

// set has i in the set, or not.
func (b *bits) set(i int, is bool) {
	if is {
		for len(*b) <= i/word {
			*b = append(*b, 0)
		}
		(*b)[i/word] |= 1 << (i % word)
	} else if i/word < len(*b) {
		(*b)[i/word] &^= 1 << (i % word)
	}
}

// matching remembers which terms match which groups, so that a change asks only what is new.
type matching struct {
	spaces map[string]labels.Set
	terms  map[string]*term
	byID   []*term // nil: the number is free
	groups map[string]*group
	// flipped says that a group is.
	flipped bool
}

func newMatching() matching {
	return matching{spaces: map[string]labels.Set{}, terms: map[string]*term{}, groups: map[string]*group{}}
}

// space are the labels of a namespace. One that has not been heard of has its name, as the API
// gives it.
func (m *matching) space(name string) labels.Set {
	if set, there := m.spaces[name]; there {
		return set
	}
	return labels.Set{corev1.LabelMetadataName: name}
}

// setSpace takes the labels of a namespace over; nil: it is gone.
func (m *matching) setSpace(name string, set map[string]string) {
	if set == nil {
		delete(m.spaces, name)
	} else {
		m.spaces[name] = set
	}
	space := m.space(name)
	for _, g := range m.groups {
		if g.namespace == name {
			m.judge(g, space)
		}
	}
}

func (m *matching) judge(g *group, space labels.Set) {
	for _, t := range m.byID {
		if t != nil {
			m.judgeBy(t, g, space)
		}
	}
}

// judgeBy notes whether a term matches a group.
func (m *matching) judgeBy(t *term, g *group, space labels.Set) {
	if is := t.matches(g.namespace, space, g.labels); is != g.matched.has(t.id) {
		g.matched.set(t.id, is)
		g.flipped, m.flipped = true, true
	}
}

// use returns the term of a peer, or of a policy's own pods: then spaces is nil.
func (m *matching) use(namespace string, spaces, pods *metav1.LabelSelector) (*term, error) {
	t := &term{namespace: namespace, uses: 1}
	var err error
	if pods == nil {
		pods = &metav1.LabelSelector{}
	}
	if t.pods, err = metav1.LabelSelectorAsSelector(pods); err != nil {
		return nil, err
	}
	if t.key = "=" + namespace; spaces != nil {
		if t.spaces, err = metav1.LabelSelectorAsSelector(spaces); err != nil {
			return nil, err
		}
		t.namespace, t.key = "", "~"+t.spaces.String()
	}
	t.key += "\x00" + t.pods.String()
	if known := m.terms[t.key]; known != nil {
		known.uses++
		return known, nil
	}
	if t.id = slices.Index(m.byID, nil); t.id < 0 {
		t.id = len(m.byID)
		m.byID = append(m.byID, nil)
	}
	m.byID[t.id], m.terms[t.key] = t, t
	for _, g := range m.groups {
		m.judgeBy(t, g, m.space(g.namespace))
	}
	return t, nil
}

// drop is the opposite of use.
func (m *matching) drop(t *term) {
	if t.uses--; t.uses == 0 {
		delete(m.terms, t.key)
		m.byID[t.id] = nil
	}
}

// join returns the group of a pod.
func (m *matching) join(namespace string, set map[string]string) *group {
	key := groupKey(namespace, set)
	g := m.groups[key]
	if g == nil {
		g = &group{namespace: namespace, labels: set}
		m.groups[key] = g
		m.judge(g, m.space(namespace))
	}
	g.uses++
	return g
}

// leave is the opposite of join.
func (m *matching) leave(g *group) {
	if g.uses--; g.uses == 0 {
		delete(m.groups, groupKey(g.namespace, g.labels))
	}
}

func groupKey(namespace string, set map[string]string) string {
	var key strings.Builder
	key.WriteString(namespace)
	for _, name := range slices.Sorted(maps.Keys(set)) {
		key.WriteByte(0)
		key.WriteString(name)
		key.WriteByte('=')
		key.WriteString(set[name])
	}
	return key.String()
}
