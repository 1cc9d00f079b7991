// Package jsonr reads JSON (RFC 8259) key by key, as package jsonw writes it. Decoding into
// structs neither names a wrong value by its whole key, nor tells a missing key from its zero
// value, nor tells which keys are left over; and it costs reflection, in every process anew.
package jsonr

import (
	"encoding/json"
	"fmt"
	"iter"
	"strconv"
	"strings"
)

// Object is a JSON object. Keys match without regard to the case of ASCII letters, as
// encoding/json has it and containerd relies on: a key spelt exactly comes before others, and
// of equal ones the last one counts. The first value of a wrong type is kept as the error,
// with its key, for Err.
type Object struct {
	at      *place
	members []member
	err     *error // shared with the objects inside
}

type member struct {
	name string
	raw  []byte
}

// place is where a value stands: "ipam.ranges[0][1]".
type place struct {
	in  *place // nil: the outermost object
	key string
	n   int // in a list; -1: key counts
}

func (p *place) String() string {
	switch {
	case p == nil:
		return ""
	case p.n >= 0:
		return p.in.String() + "[" + strconv.Itoa(p.n) + "]"
	case p.in == nil:
		return p.key
	}
	return p.in.String() + "." + p.key
}

// Error says that a value is not what it has to be.
type Error struct {
	Key   string // with its place, "ipam.ranges[0][1].subnet"
	Value string // as it was given, at most 80 bytes of it
	Want  string // "want a prefix"
}

// Error names key, value and what would be right.
func (e *Error) Error() string { return e.Key + ": " + e.Value + ": " + e.Want }

// SyntaxError says that data is not JSON.
type SyntaxError struct{ Err error }

// Error says where.
func (e *SyntaxError) Error() string { return fmt.Sprintf("not valid JSON: %v", e.Err) }

// Unwrap returns what encoding/json says.
func (e *SyntaxError) Unwrap() error { return e.Err }

// Parse reads data, which must hold one object. The error is a *SyntaxError, or an *Error for
// another value. The object refers to data.
func Parse(data []byte) (*Object, error) {
	o := &Object{err: new(error)}
	if !json.Valid(data) {
		return o, &SyntaxError{json.Unmarshal(data, new(any))} // which says where
	}
	Value{place: place{n: -1}, raw: trim(data), err: o.err}.fill(o)
	return o, *o.err
}

// At returns the value of a key.
func (o *Object) At(key string) Value {
	v := Value{place: place{in: o.at, key: key, n: -1}, err: o.err}
	exact := false
	for _, m := range o.members {
		if same := m.name == key; same || !exact && sameKey(m.name, key) {
			v.raw, exact = m.raw, same
		}
	}
	return v.orMissing()
}

// Has says whether the key is there, if only as null.
func (o *Object) Has(key string) bool {
	for _, m := range o.members {
		if sameKey(m.name, key) {
			return true
		}
	}
	return false
}

func sameKey(a, b string) bool { return len(a) == len(b) && strings.EqualFold(a, b) }

// Values returns the values of all keys, also of one that is there twice, in their order.
func (o *Object) Values() iter.Seq[Value] {
	return func(yield func(Value) bool) {
		for _, m := range o.members {
			if !yield(Value{place{o.at, m.name, -1}, m.raw, o.err}.orMissing()) {
				return
			}
		}
	}
}

// Place is where the object stands, "ipam.ranges[0][1]"; empty for the outermost one.
func (o *Object) Place() string { return o.at.String() }

// String sets to by a key; a missing key leaves it as it is.
func (o *Object) String(key string, to *string) { o.At(key).String(to) }

// Apart is the same object with an error of its own: what is read of it does not fail the
// rest, nor the rest it.
func (o *Object) Apart() *Object { return &Object{o.at, o.members, new(error)} }

// Err returns the first error of the object, the objects inside and the object it is inside of.
func (o *Object) Err() error { return *o.err }

// Fail keeps an error for Err, unless there is one already.
func (o *Object) Fail(err error) {
	if *o.err == nil {
		*o.err = err
	}
}
