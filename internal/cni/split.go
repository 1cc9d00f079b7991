package cni

import "encoding/json"

// splitObject returns the values of a valid object by their keys; of a key that
// is there twice, the last one.
func splitObject(data []byte) map[string]json.RawMessage {
	var keys map[string]json.RawMessage
	_ = json.Unmarshal(data, &keys) // of a valid object: never fails
	return keys
}
