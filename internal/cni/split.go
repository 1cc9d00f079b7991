package cni

import (
	"bytes"
	"encoding/json"
)

// split.go takes JSON that json.Valid has accepted apart, one level at a time,
// without reflection: what encoding/json needs to learn of a type it learns in
// every process anew.

// isObject and isList say what a value looks like.
func isObject(data []byte) bool { return bytes.HasPrefix(bytes.TrimLeft(data, space), []byte("{")) }
func isList(data []byte) bool   { return bytes.HasPrefix(bytes.TrimLeft(data, space), []byte("[")) }

// space is JSON's white space (RFC 8259, section 2).
const space = " \t\r\n"

// splitObject returns the values of a valid object by their keys; of a key that
// is there twice, the last one.
func splitObject(data []byte) map[string]json.RawMessage {
	keys := map[string]json.RawMessage{}
	var key string
	for i, v := range splitItems(data) {
		if i%2 == 0 {
			key, _ = unquote(v) // valid, so a string
		} else {
			keys[key] = v
		}
	}
	return keys
}

// splitList returns the items of a valid list.
func splitList(data []byte) []json.RawMessage { return splitItems(data) }

// splitItems returns the values right inside a valid object or list, an
// object's keys among them.
func splitItems(data []byte) []json.RawMessage {
	data = bytes.Trim(data, space)
	items := make([]json.RawMessage, 0, 16) // few have more
	for i := 1; i < len(data)-1; {
		switch data[i] {
		case ' ', '\t', '\r', '\n', ',', ':':
			i++
		default:
			end := i + valueLen(data[i:])
			items = append(items, json.RawMessage(data[i:end]))
			i = end
		}
	}
	return items
}

// valueLen returns the length of the valid value that data starts with.
func valueLen(data []byte) int {
	switch data[0] {
	case '"':
		return stringLen(data)
	case '{', '[':
		depth := 0
		for i := 0; i < len(data); i++ {
			switch data[i] {
			case '"':
				i += stringLen(data[i:]) - 1
			case '{', '[':
				depth++
			case '}', ']':
				if depth--; depth == 0 {
					return i + 1
				}
			}
		}
		return len(data)
	}
	if n := bytes.IndexAny(data, space+",]}"); n > 0 {
		return n
	}
	return len(data)
}

// stringLen returns the length of the valid string that data starts with.
func stringLen(data []byte) int {
	for i := 1; i < len(data); i++ {
		switch data[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return len(data)
}

// unquote returns what a valid string says; false for another value.
func unquote(raw []byte) (string, bool) {
	if len(raw) < 2 || raw[0] != '"' {
		return "", false
	}
	inner := raw[1 : len(raw)-1]
	for _, c := range inner {
		if c == '\\' || c >= 0x80 { // escapes, and bytes that may not be UTF-8
			var s string
			err := json.Unmarshal(raw, &s)
			return s, err == nil
		}
	}
	return string(inner), true
}
