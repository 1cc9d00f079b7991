package conf

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// object is a JSON object that keeps the order in which its keys were set.
type object struct {
	keys   []string
	values map[string]any
}

func (o *object) set(key string, value any) {
	if o.values == nil {
		o.values = map[string]any{}
	}
	if !slices.Contains(o.keys, key) {
		o.keys = append(o.keys, key)
	}
	o.values[key] = value
}

// MarshalJSON writes the keys in their order.
func (o *object) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, key := range o.keys {
		if i > 0 {
			b.WriteByte(',')
		}
		name, err := json.Marshal(key)
		if err != nil {
			return nil, err
		}
		value, err := json.Marshal(o.values[key])
		if err != nil {
			return nil, err
		}
		b.Write(name)
		b.WriteByte(':')
		b.Write(value)
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// leaf is a value of a JSON document that is no object, and no list of objects.
type leaf struct {
	path string // "IPAM.Config[0].Subnet"
	kind string // the same without numbers: "IPAM.Config[].Subnet"
	at   int    // the last number
	key  string // the last key, which may have dots
	raw  any
}

// text is the value in words.
func (l leaf) text() string {
	switch v := l.raw.(type) {
	case nil:
		return ""
	case string:
		return v
	case []any:
		var all []string
		for _, item := range v {
			all = append(all, fmt.Sprint(item))
		}
		return strings.Join(all, " ")
	case map[string]any:
		return ""
	}
	return fmt.Sprint(l.raw)
}

func (l leaf) yes() bool { return l.text() == "true" }

// none says that the value asks for nothing.
func (l leaf) none() bool { return slices.Contains([]string{"", "false", "0"}, l.text()) }

// leaves are those of a value, in the order of their keys. Empty objects and lists are leaves.
func leaves(path, kind, key string, at int, v any) (all []leaf) {
	switch v := v.(type) {
	case map[string]any:
		keys := make([]string, 0, len(v))
		for k := range v {
			keys = append(keys, k)
		}
		slices.Sort(keys)
		for _, k := range keys {
			all = append(all, leaves(joined(path, k), joined(kind, k), k, at, v[k])...)
		}
	case []any:
		objects := false
		for i, item := range v {
			if _, is := item.(map[string]any); is {
				objects = true
				all = append(all, leaves(fmt.Sprintf("%s[%d]", path, i), kind+"[]", key, i, item)...)
			}
		}
		if objects {
			return all
		}
	}
	if len(all) == 0 {
		all = []leaf{{path, kind, at, key, v}}
	}
	return all
}

func joined(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}
