// Package jsonw writes JSON (RFC 8259) field by field. encoding/json first has to learn
// each struct by reflection, in every process anew: for records that costs 5 % of an ADD's
// CPU time (BenchmarkEncode in internal/state), for results 3 % (BenchmarkWriteResult in
// internal/cni).
package jsonw

import (
	"encoding/json"
	"strconv"
)

// room is what an object has to begin with, in bytes: most never need more.
const room = 1024

// Object is an object being written. The zero value is an empty one.
type Object struct{ buf []byte }

// name starts a field.
func (o *Object) name(name string) {
	switch n := len(o.buf); {
	case n == 0:
		o.buf = append(make([]byte, 0, room), '{')
	case o.buf[n-1] != '{': // no value ends so
		o.buf = append(o.buf, ',')
	}
	o.buf = append(appendString(o.buf, name), ':')
}

// String writes a field.
func (o *Object) String(name, value string) {
	o.name(name)
	o.buf = appendString(o.buf, value)
}

// OptionalString writes a field unless its value is empty.
func (o *Object) OptionalString(name, value string) {
	if value != "" {
		o.String(name, value)
	}
}

// Strings writes a list of strings, unless it is empty.
func (o *Object) Strings(name string, values []string) {
	if len(values) == 0 {
		return
	}
	o.list(name, len(values), func(i int) { o.buf = appendString(o.buf, values[i]) })
}

// Uint writes a field.
func (o *Object) Uint(name string, value uint64) {
	o.name(name)
	o.buf = strconv.AppendUint(o.buf, value, 10)
}

// OptionalInt writes a field unless its value is 0.
func (o *Object) OptionalInt(name string, value int) {
	if value != 0 {
		o.Int(name, value)
	}
}

// Int writes a field.
func (o *Object) Int(name string, value int) {
	o.name(name)
	o.buf = strconv.AppendInt(o.buf, int64(value), 10)
}

// Bool writes a field.
func (o *Object) Bool(name string, value bool) {
	o.name(name)
	o.buf = strconv.AppendBool(o.buf, value)
}

// Raw writes a field whose value is JSON already.
func (o *Object) Raw(name string, value []byte) {
	o.name(name)
	o.buf = append(o.buf, value...)
}

// Object writes an object, whose fields fill writes.
func (o *Object) Object(name string, fill func(*Object)) {
	o.name(name)
	o.inner(fill)
}

// Objects writes a list of n objects; fill writes the fields of number i.
func (o *Object) Objects(name string, n int, fill func(i int, o *Object)) {
	o.list(name, n, func(i int) { o.inner(func(o *Object) { fill(i, o) }) })
}

func (o *Object) inner(fill func(*Object)) {
	o.buf = append(o.buf, '{')
	fill(o)
	o.buf = append(o.buf, '}')
}

// list writes a list of n values; value writes number i.
func (o *Object) list(name string, n int, value func(i int)) {
	o.name(name)
	o.buf = append(o.buf, '[')
	for i := range n {
		if i > 0 {
			o.buf = append(o.buf, ',')
		}
		value(i)
	}
	o.buf = append(o.buf, ']')
}

// Bytes ends the object and returns it.
func (o *Object) Bytes() []byte {
	if len(o.buf) == 0 {
		return []byte("{}")
	}
	return append(o.buf, '}')
}

// appendString appends s as a JSON string.
func appendString(buf []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			quoted, _ := json.Marshal(s) // of a string: cannot fail
			return append(buf, quoted...)
		}
	}
	buf = append(buf, '"')
	buf = append(buf, s...)
	return append(buf, '"')
}
