package jsonr

import (
	"bytes"
	"encoding/json"
)

// This file takes JSON that json.Valid has accepted apart, one level at a time. It does what
// json.Unmarshal into a map, or a list, of json.RawMessage does; that first learns the types
// by reflection, and makes a copy of all.

// space is JSON's white space (RFC 8259, section 2).
const space = " \t\r\n"

func trim(data []byte) []byte { return bytes.TrimLeft(data, space) }

// next returns the value at the start of data, and what follows it.
func next(data []byte) (value, rest []byte) {
	data = trim(data)
	n := 0
	switch data[0] {
	case '"':
		n = stringLen(data)
	case '{', '[':
		n = nestedLen(data)
	default:
		if n = bytes.IndexAny(data, ",]}"+space); n < 0 {
			n = len(data)
		}
	}
	return data[:n:n], data[n:]
}

// stringLen is the length of the string at the start of data, with its quotes.
func stringLen(data []byte) int {
	for n := 1; ; n++ {
		switch data[n] {
		case '\\':
			n++
		case '"':
			return n + 1
		}
	}
}

// nestedLen is the length of the object or list at the start of data.
func nestedLen(data []byte) int {
	depth := 0
	for n := 0; ; n++ {
		switch data[n] {
		case '{', '[':
			depth++
		case '}', ']':
			if depth--; depth == 0 {
				return n + 1
			}
		case '"':
			n += stringLen(data[n:]) - 1
		}
	}
}

// members returns the keys and values of an object, in their order.
func members(data []byte) []member {
	all := make([]member, 0, 8)
	for data = trim(trim(data)[1:]); data[0] != '}'; data = trim(data) {
		if data[0] == ',' {
			data = data[1:]
		}
		name, rest := next(data)
		value, rest := next(trim(rest)[1:]) // after the colon
		all, data = append(all, member{text(name), value}), rest
	}
	return all
}

// items returns the values of a list.
func items(data []byte) [][]byte {
	all := [][]byte{}
	for data = trim(trim(data)[1:]); data[0] != ']'; data = trim(data) {
		if data[0] == ',' {
			data = data[1:]
		}
		var value []byte
		value, data = next(data)
		all = append(all, value)
	}
	return all
}

// text is what a string says.
func text(quoted []byte) string {
	inner := quoted[1 : len(quoted)-1]
	for _, c := range inner {
		if c == '\\' || c >= 0x80 {
			var s string
			_ = json.Unmarshal(quoted, &s) // of a valid string: never fails
			return s
		}
	}
	return string(inner)
}
