package cni

import (
	"bytes"
	"encoding/json"
)

// split.go takes JSON that json.Valid has accepted apart, one level at a time.

// isObject and isList say what a value looks like.
func isObject(data []byte) bool { return bytes.HasPrefix(bytes.TrimLeft(data, space), []byte("{")) }
func isList(data []byte) bool   { return bytes.HasPrefix(bytes.TrimLeft(data, space), []byte("[")) }

// space is JSON's white space (RFC 8259, section 2).
const space = " \t\r\n"

// splitObject returns the values of a valid object by their keys; of a key that
// is there twice, the last one.
func splitObject(data []byte) map[string]json.RawMessage {
	var keys map[string]json.RawMessage
	_ = json.Unmarshal(data, &keys) // of a valid object: never fails
	return keys
}

// splitList returns the items of a valid list.
func splitList(data []byte) []json.RawMessage {
	var items []json.RawMessage
	_ = json.Unmarshal(data, &items) // of a valid list: never fails
	return items
}

// unquote returns the text of a valid string; false for another value.
func unquote(raw []byte) (string, bool) {
	if len(raw) < 2 || raw[0] != '"' {
		return "", false
	}
	var s string
	err := json.Unmarshal(raw, &s)
	return s, err == nil
}
