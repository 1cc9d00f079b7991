package cni

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"strconv"
	"strings"

	"github.com/containernetworking/cni/pkg/types"
)

// Object reads a JSON object key by key. Keys match without regard to case, as
// encoding/json has it and containerd relies on, a key spelt exactly before
// others. A missing key and null leave what they would set as it is. The first
// value of a wrong type is kept as the error, with its key, for Err.
//
// It stands in for decoding into structs, which neither names a wrong value by
// its whole key nor tells a missing key from its zero value.
type Object struct {
	path string // of the object: "ipam.ranges[0][1]"; empty: the configuration
	keys map[string]json.RawMessage
	err  *error // shared with the objects inside
}

// ParseObject reads data, which must hold one object. The error is of code 6
// for what is not JSON, of code 7 for another value.
func ParseObject(data []byte) (*Object, error) {
	o := &Object{err: new(error)}
	if !json.Valid(data) {
		err := json.Unmarshal(data, new(any)) // says where
		return o, codef(types.ErrDecodingFailure, "the configuration on stdin is not valid JSON: %v", err)
	}
	o.parse(data)
	return o, *o.err
}

func (o *Object) parse(data []byte) {
	if !isObject(data) {
		o.refuse("", data, "an object")
		return
	}
	o.keys = splitObject(data)
}

func (o *Object) fail(err error) {
	if *o.err == nil {
		*o.err = err
	}
}

// Refuse keeps the error that a key's value is not what it should be.
func (o *Object) Refuse(key, want string) { o.refuse(key, o.Raw(key), want) }

func (o *Object) refuse(key string, raw json.RawMessage, want string) {
	at := o.at(key)
	if at == "" {
		at = "the configuration"
	}
	o.fail(badKey(at, brief(raw), "want "+want))
}

// brief is a value as an error shows it.
func brief(raw json.RawMessage) string {
	const most = 80
	if len(raw) > most {
		return string(raw[:most]) + "…"
	}
	return string(raw)
}

// apart is the same object with an error of its own: what is read of it does
// not fail the rest, nor the rest it.
func (o *Object) apart() *Object { return &Object{path: o.path, keys: o.keys, err: new(error)} }

// at is the whole path of a key.
func (o *Object) at(key string) string { return strings.Trim(o.path+"."+key, ".") }

// Err returns the first error of the object, the objects inside and the object
// it is inside of.
func (o *Object) Err() error { return *o.err }

// Raw returns a key's value; nil if it is missing or null.
func (o *Object) Raw(key string) json.RawMessage {
	raw, exact := o.keys[key]
	if !exact {
		for k, v := range o.keys {
			if strings.EqualFold(k, key) {
				raw = v
			}
		}
	}
	if bytes.Equal(raw, []byte("null")) {
		return nil
	}
	return raw
}

// Has says whether the key is there, if only as null.
func (o *Object) Has(key string) bool {
	for k := range o.keys {
		if strings.EqualFold(k, key) {
			return true
		}
	}
	return false
}

// String sets to by a key.
func (o *Object) String(key string, to *string) {
	raw := o.Raw(key)
	if raw == nil {
		return
	}
	s, ok := unquote(raw)
	if !ok {
		o.refuse(key, raw, "a string")
		return
	}
	*to = s
}

// Bool sets to by a key.
func (o *Object) Bool(key string, to *bool) {
	switch raw := o.Raw(key); string(raw) {
	case "":
	case "true":
		*to = true
	case "false":
		*to = false
	default:
		o.refuse(key, raw, "true or false")
	}
}

// Int sets to by a key.
func (o *Object) Int(key string, to *int) {
	raw := o.Raw(key)
	if raw == nil {
		return
	}
	n, err := strconv.Atoi(string(raw))
	if err != nil {
		o.refuse(key, raw, "a whole number")
		return
	}
	*to = n
}

// OptionalInt is Int for a number that may be missing: nil.
func (o *Object) OptionalInt(key string) *int {
	if o.Raw(key) == nil {
		return nil
	}
	n := new(int)
	o.Int(key, n)
	return n
}

// Strings returns a key's list of strings; nil if it is missing.
func (o *Object) Strings(key string) []string {
	raw := o.Raw(key)
	if raw == nil {
		return nil
	}
	list := []string{}
	for _, item := range o.List(key) {
		s, ok := unquote(item.raw)
		if !ok {
			o.refuse(key, raw, "a list of strings")
			return nil
		}
		list = append(list, s)
	}
	return list
}

// Addr returns a key's IP address; the zero Addr if it is missing or empty.
func (o *Object) Addr(key string) netip.Addr {
	var s string
	o.String(key, &s)
	if s == "" {
		return netip.Addr{}
	}
	a, err := netip.ParseAddr(s)
	if err != nil {
		o.refuse(key, o.Raw(key), `an address as "10.1.0.1" or "fd00:1::1"`)
	}
	return a.Unmap()
}

// Prefix returns a key's prefix, its host bits as they stand.
func (o *Object) Prefix(key string) netip.Prefix {
	var s string
	o.String(key, &s)
	p, err := netip.ParsePrefix(s)
	if err != nil {
		raw := o.Raw(key)
		if raw == nil {
			raw = json.RawMessage("missing")
		}
		o.refuse(key, raw, `a prefix as "10.1.0.0/24" or "fd00:1::/64"`)
	}
	return p
}

// Object returns the object under a key; an empty one if it is missing.
func (o *Object) Object(key string) *Object {
	inner := &Object{path: o.at(key), err: o.err}
	if raw := o.Raw(key); raw != nil {
		inner.parse(raw)
	}
	return inner
}

// List returns a key's list, each item with its path; nil if it is missing.
func (o *Object) List(key string) []Item {
	return Item{path: o.at(key), raw: o.Raw(key), err: o.err}.List()
}

// Item is a value in a list.
type Item struct {
	path string
	raw  json.RawMessage
	err  *error
}

// List returns the items of a list inside the list.
func (i Item) List() []Item {
	if i.raw == nil {
		return nil
	}
	if !isList(i.raw) {
		(&Object{path: i.path, err: i.err}).refuse("", i.raw, "a list")
		return nil
	}
	raw := splitList(i.raw)
	items := make([]Item, len(raw))
	for n := range raw {
		items[n] = Item{path: i.path + "[" + strconv.Itoa(n) + "]", raw: raw[n], err: i.err}
	}
	return items
}

// IsObject says whether the item looks like one.
func (i Item) IsObject() bool { return isObject(i.raw) }

// Object returns the item as an object.
func (i Item) Object() *Object {
	o := &Object{path: i.path, err: i.err}
	o.parse(i.raw)
	return o
}
