package cniplugin

import (
	"encoding/json"
	"fmt"

	"github.com/containernetworking/cni/pkg/version"

	"github.com/libnet-cni/libnet/internal/driver"
)

// conf is a plugin's configuration, by key. It is read once for each call.
type conf map[string]json.RawMessage

func read(text json.RawMessage) (c conf, err error) {
	if err = json.Unmarshal(text, &c); err != nil {
		return nil, fmt.Errorf("configuration of a plugin: %w", err)
	}
	return c, nil
}

// decode reads the value of a key; without the key it leaves v as it is.
func (c conf) decode(key string, v any) error {
	text, has := c[key]
	if !has {
		return nil
	}
	if err := json.Unmarshal(text, v); err != nil {
		return fmt.Errorf("key %s: %w", key, err)
	}
	return nil
}

// version is the version of CNI that the configuration is of; empty: it says none.
func (c conf) version() (v string) {
	if c.decode("cniVersion", &v) != nil {
		return ""
	}
	return v
}

// since says whether it is of this version of CNI, or a later one.
func (c conf) since(least string) bool {
	ok, err := version.GreaterThanOrEqualTo(c.version(), least)
	return ok && err == nil
}

// withResult is the configuration for what comes after ADD. Without a result ADD did
// not come to its end, and the plugin goes by what it finds.
func (c conf) withResult(a driver.Attachment) (json.RawMessage, error) {
	if a.Result == nil || !c.since("0.4.0") {
		return a.Conf, nil
	}
	return c.with("prevResult", a.Result)
}

// with adds a key, in place.
func (c conf) with(key string, value any) (json.RawMessage, error) {
	text, err := json.Marshal(value)
	if err != nil {
		return nil, fmt.Errorf("key %s: %w", key, err)
	}
	c[key] = text
	return json.Marshal(c)
}
