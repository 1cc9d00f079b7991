package jsonr

import (
	"net/netip"
	"strconv"
)

// Value is a value in an object or a list. A missing one and null leave what they would set
// as it is.
type Value struct {
	place
	raw []byte // nil: missing or null
	err *error
}

// orMissing has null be missing.
func (v Value) orMissing() Value {
	if string(v.raw) == "null" {
		v.raw = nil
	}
	return v
}

// Name is the value's key as it is spelt; empty for an item of a list.
func (v Value) Name() string { return v.key }

// Missing says that the value is missing or null.
func (v Value) Missing() bool { return v.raw == nil }

// Raw returns the value as it is written; nil if it is missing or null.
func (v Value) Raw() []byte { return v.raw }

// Place is where the value stands: "ipam.ranges[0][1].subnet".
func (v Value) Place() string { return v.place.String() }

// Refuse keeps the error that the value is not what is wanted.
func (v Value) Refuse(want string) {
	if *v.err != nil {
		return
	}
	e := &Error{Key: v.Place(), Value: brief(v.raw), Want: "want " + want}
	if v.raw == nil {
		e.Value = "missing"
	}
	if e.Key == "" {
		e.Key = "the configuration"
	}
	*v.err = e
}

// brief is a value as an error shows it.
func brief(raw []byte) string {
	const most = 80
	if len(raw) > most {
		return string(raw[:most]) + "…"
	}
	return string(raw)
}

// Text returns what a string says; false for another value.
func (v Value) Text() (string, bool) {
	if len(v.raw) < 2 || v.raw[0] != '"' {
		return "", false
	}
	return text(v.raw), true
}

// String sets to.
func (v Value) String(to *string) {
	if v.raw == nil {
		return
	}
	s, ok := v.Text()
	if !ok {
		v.Refuse("a string")
		return
	}
	*to = s
}

// Bool sets to.
func (v Value) Bool(to *bool) {
	switch string(v.raw) {
	case "":
	case "true":
		*to = true
	case "false":
		*to = false
	default:
		v.Refuse("true or false")
	}
}

// Int sets to.
func (v Value) Int(to *int) {
	if v.raw == nil {
		return
	}
	n, err := strconv.Atoi(string(v.raw))
	if err != nil {
		v.Refuse("a whole number")
		return
	}
	*to = n
}

// Uint sets to.
func (v Value) Uint(to *uint64) {
	if v.raw == nil {
		return
	}
	n, err := strconv.ParseUint(string(v.raw), 10, 64)
	if err != nil {
		v.Refuse("a whole number from 0")
		return
	}
	*to = n
}

// OptionalInt is Int for a number that may be missing: nil.
func (v Value) OptionalInt() *int {
	if v.raw == nil {
		return nil
	}
	n := new(int)
	v.Int(n)
	return n
}

// Strings returns a list of strings; nil if it is missing.
func (v Value) Strings() []string {
	if v.raw == nil {
		return nil
	}
	list := []string{}
	for _, item := range v.Items() {
		s, ok := item.Text()
		if !ok {
			v.Refuse("a list of strings")
			return nil
		}
		list = append(list, s)
	}
	return list
}

// Addr returns an IP address; the zero Addr if it is missing or empty.
func (v Value) Addr() netip.Addr {
	var s string
	v.String(&s)
	if s == "" {
		return netip.Addr{}
	}
	a, err := netip.ParseAddr(s)
	if err != nil {
		v.Refuse(`an address as "10.1.0.1" or "fd00:1::1"`)
	}
	return a.Unmap()
}

// Prefix returns a prefix, its host bits as they stand. A missing one is an error.
func (v Value) Prefix() netip.Prefix {
	var s string
	v.String(&s)
	p, err := netip.ParsePrefix(s)
	if err != nil {
		v.Refuse(`a prefix as "10.1.0.0/24" or "fd00:1::/64"`)
	}
	return p
}

// IsObject says whether the value is an object.
func (v Value) IsObject() bool { return len(v.raw) > 0 && v.raw[0] == '{' }

// IsList says whether the value is a list.
func (v Value) IsList() bool { return len(v.raw) > 0 && v.raw[0] == '[' }

// Object returns the value as an object; a missing one is empty.
func (v Value) Object() *Object {
	at := v.place
	o := &Object{at: &at, err: v.err}
	if v.raw != nil {
		v.fill(o)
	}
	return o
}

func (v Value) fill(o *Object) {
	if !v.IsObject() {
		v.Refuse("an object")
		return
	}
	o.members = members(v.raw)
}

// Items returns the items of a list; nil if it is missing.
func (v Value) Items() []Value {
	if v.raw == nil {
		return nil
	}
	if !v.IsList() {
		v.Refuse("a list")
		return nil
	}
	list, at := items(v.raw), v.place
	all := make([]Value, len(list))
	for n, raw := range list {
		all[n] = Value{place{&at, "", n}, raw, v.err}
	}
	return all
}
