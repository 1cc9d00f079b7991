// Package layers lays configurations on top of each other: what a higher one says counts, by
// the rules of JSON Merge Patch (RFC 7386), and each value keeps the name of the layer that it
// is from. Keys match without regard to case, as in package jsonr. It reads no files and knows
// no keys.
package layers

import (
	"strings"

	"github.com/libnet-cni/libnet/internal/jsonr"
	"github.com/libnet-cni/libnet/internal/jsonw"
)

// Layer is one of the configurations.
type Layer struct {
	From string // its name, for origins
	Conf *jsonr.Object
}

// Origin says which layer a value is from.
type Origin struct {
	Key  string // with its place, "ipam.cooldown"
	From string
}

// Origins are those of one configuration. A key that is not there is inside a value that is
// from one layer as a whole.
type Origins []Origin

// Of returns the layer that a key is from, with the place in a list or not; empty: from none.
func (all Origins) Of(key string) string {
	best, from := -1, ""
	for _, o := range all {
		rest, inside := cutFold(key, o.Key)
		if inside && len(o.Key) > best && (rest == "" || rest[0] == '.' || rest[0] == '[') {
			best, from = len(o.Key), o.From
		}
	}
	return from
}

func cutFold(s, prefix string) (rest string, is bool) {
	if len(s) < len(prefix) || !strings.EqualFold(s[:len(prefix)], prefix) {
		return "", false
	}
	return s[len(prefix):], true
}

// Values are those of an object, by key; of a key that is not there, a missing one.
type Values func(key string) jsonr.Value

// Rule says which keys of an object a higher layer's object at the same place drops, beside
// those that it has itself; nil: none. The place of the outermost objects is empty.
type Rule func(place string, lower, higher Values) (drops func(key string) bool)

// Merge lays layers on top of each other, the lowest first, and returns the text of the object
// that they are together, with the origin of each value of it. A null takes away what a lower
// layer has, and stays: package jsonr reads it as missing. The keys of the highest layer are spelt as there, and stay as they are if they are
// there twice.
func Merge(rule Rule, all ...Layer) ([]byte, Origins) {
	var o object
	for _, l := range all {
		o = lay(rule, "", o, objectOf(l.Conf, l.From))
	}
	var text jsonw.Object
	o.write(&text)
	return text.Bytes(), o.origins("", nil)
}

// object is an object of which each member has an origin.
type object []member

type member struct {
	value jsonr.Value
	from  string
	// inside are the members of an object that several layers have, which is merged.
	inside object
	merged bool
}

func objectOf(conf *jsonr.Object, from string) (o object) {
	for v := range conf.Values() {
		o = append(o, member{value: v, from: from})
	}
	return o
}

// lay returns what two objects at a place are together.
func lay(rule Rule, place string, lower, higher object) object {
	drops := rule(place, lower.value, higher.value)
	var o object
	for _, h := range higher {
		l := lower.find(h.value.Name())
		if l != nil && l.value.IsObject() && h.value.IsObject() {
			h = member{value: h.value, inside: lay(rule, join(place, h.value.Name()), l.members(), h.members()), merged: true}
		}
		o = append(o, h)
	}
	for _, l := range lower {
		if higher.find(l.value.Name()) == nil && (drops == nil || !drops(l.value.Name())) {
			o = append(o, l)
		}
	}
	return o
}

// find returns the member that counts of those that have a key; nil: there is none.
func (o object) find(key string) (found *member) {
	exact := false
	for i := range o {
		name := o[i].value.Name()
		if same := name == key; same || !exact && len(name) == len(key) && strings.EqualFold(name, key) {
			found, exact = &o[i], same
		}
	}
	return found
}

// members are those inside of a value that is an object.
func (m *member) members() object {
	if m.merged {
		return m.inside
	}
	return objectOf(m.value.Object(), m.from)
}

// value is what counts of a key.
func (o object) value(key string) (v jsonr.Value) {
	if m := o.find(key); m != nil {
		v = m.value
	}
	return v
}

func (o object) write(to *jsonw.Object) {
	for _, m := range o {
		switch name := m.value.Name(); {
		case m.merged:
			to.Object(name, m.inside.write)
		case m.value.Missing():
			to.Raw(name, []byte("null"))
		default:
			to.Raw(name, m.value.Raw())
		}
	}
}

func (o object) origins(place string, all Origins) Origins {
	for _, m := range o {
		at := join(place, m.value.Name())
		if m.merged {
			all = m.inside.origins(at, all)
		} else {
			all = append(all, Origin{at, m.from})
		}
	}
	return all
}

func join(place, key string) string {
	if place == "" {
		return key
	}
	return place + "." + key
}
