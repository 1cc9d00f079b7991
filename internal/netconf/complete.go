package netconf

import (
	"errors"
	"fmt"
	"strings"

	"github.com/libnet-cni/libnet/internal/jsonr"
	"github.com/libnet-cni/libnet/internal/jsonw"
	"github.com/libnet-cni/libnet/internal/layers"
	"github.com/libnet-cni/libnet/internal/model"
)

// Completed is a configuration with what lies below it.
type Completed struct {
	Text    []byte
	Conf    *jsonr.Object
	origins layers.Origins
	below   *Below
	plugin  Plugin
}

// Complete lays a configuration of a plugin upon the defaults and its template. It is an error
// if it says what a final template says.
func (b *Below) Complete(p Plugin, conf *jsonr.Object) (*Completed, error) {
	var all []layers.Layer
	if b.defaults != nil { // which are for every plugin
		all = append(all, layers.Layer{From: fromDefaults, Conf: only(p, table[:], b.defaults.conf)})
	}
	if t := b.template; t != nil {
		if t.final {
			if err := t.refuseOwn("", t.conf, conf); err != nil {
				return nil, err
			}
		}
		all = append(all, layers.Layer{From: fromTemplate + t.name, Conf: t.conf})
	}
	c := &Completed{below: b, plugin: p}
	c.Text, c.origins = layers.Merge(rivals, append(all, layers.Layer{From: FromConf, Conf: conf})...)
	if t := b.template; t != nil && t.final {
		if err := t.refuseRivals("", t.conf, c); err != nil {
			return nil, err
		}
	}
	var err error
	c.Conf, err = jsonr.Parse(c.Text)
	return c, err
}

// only returns an object with the keys of a plugin alone.
func only(p Plugin, section []Key, o *jsonr.Object) *jsonr.Object {
	text := &jsonw.Object{}
	for v := range o.Values() {
		switch i := find(section, v.Name(), false); {
		case i < 0 || section[i].Of&p == 0:
		case v.IsObject() && len(section[i].Inside) > 0:
			text.Raw(v.Name(), textOf(only(p, section[i].Inside, v.Object())).Bytes())
		default:
			put(text, v)
		}
	}
	return parsed(text)
}

// refuseOwn refuses what a configuration says of what its final template says.
func (l *layer) refuseOwn(place string, of, conf *jsonr.Object) error {
	for v := range of.Values() {
		if !conf.Has(v.Name()) {
			continue
		}
		own := conf.Apart().At(v.Name())
		if v.IsObject() && own.IsObject() {
			if err := l.refuseOwn(place+v.Name()+".", v.Object(), own.Object()); err != nil {
				return err
			}
			continue
		}
		return badKey(place+v.Name(), brief(rawOf(own)), "want no such key: the template is final ("+l.path+")")
	}
	return nil
}

// refuseRivals refuses a configuration that puts what its final template says out of force by
// another key (see rivals).
func (l *layer) refuseRivals(place string, of *jsonr.Object, c *Completed) error {
	for v := range of.Values() {
		at := place + v.Name()
		if v.IsObject() {
			if err := l.refuseRivals(at+".", v.Object(), c); err != nil {
				return err
			}
			continue
		}
		if c.From(at) != fromTemplate+l.name {
			return badKey(at, brief(rawOf(v)), "want no key of the configuration that puts it out of force: the template is final ("+l.path+")")
		}
	}
	return nil
}

// rivals are keys of which one in a higher layer puts the others in a lower one out of force.
func rivals(place string, lower, higher layers.Values) func(string) bool {
	has := func(key Key) bool { return !higher(key.Name).Missing() }
	var out []Key
	switch place {
	case "":
		if has(table[keyBackend]) || has(table[keyIPMasqBackend]) { // two names of one key
			out = []Key{table[keyBackend], table[keyIPMasqBackend]}
		}
	case table[keyIPAM].Name:
		was, is := poolType, ""
		lower(ipamTable[ipamType].Name).String(&was)
		if higher(ipamTable[ipamType].Name).String(&is); is != "" && is != was { // another plugin, with keys of its own
			return func(string) bool { return true }
		}
		if has(ipamTable[ipamSubnet]) || has(ipamTable[ipamRanges]) { // which say all about the ranges
			out = []Key{ipamTable[ipamSubnet], ipamTable[ipamRangeStart], ipamTable[ipamRangeEnd], ipamTable[ipamGateway], ipamTable[ipamRanges]}
		}
	}
	return func(key string) bool { return find(out, key, false) >= 0 }
}

// From says where a key has its value from: FromConf, "defaults", "template NAME"; empty for one
// that is not there.
func (c *Completed) From(key string) string { return c.origins.Of(key) }

// Locate names the file of a value that an error is about, unless it is the configuration's.
func (c *Completed) Locate(err error) error {
	var value *jsonr.Error
	var conf *model.ConfigError
	key := ""
	switch {
	case errors.As(err, &value):
		key = value.Key
	case errors.As(err, &conf):
		key = conf.Key
	}
	if path := c.file(c.From(key)); path != "" {
		return fmt.Errorf("%s: %w", path, err)
	}
	return err
}

func (c *Completed) file(from string) string {
	switch {
	case from == fromDefaults:
		return c.below.defaults.path
	case strings.HasPrefix(from, fromTemplate):
		return c.below.template.path
	}
	return ""
}

// Record is what the record of the network keeps: what lies below the configuration, and the
// value and origin of each key that is the network's.
func (c *Completed) Record() []byte {
	var o jsonw.Object
	if d := c.below.defaults; d != nil {
		o.Object(fromDefaults, d.encode)
	}
	if t := c.below.template; t != nil {
		o.Object(recordedTemplate, t.encode)
	}
	o.Object(recordedKeys, func(o *jsonw.Object) { c.encodeKeys(o, "", table[:], c.Conf) })
	return o.Bytes()
}

const (
	recordedTemplate = "template"
	recordedKeys     = "keys"
)

func (l *layer) encode(o *jsonw.Object) {
	o.OptionalString("name", l.name)
	o.String("file", l.path)
	o.Raw("conf", textOf(l.conf).Bytes())
}

func (c *Completed) encodeKeys(o *jsonw.Object, place string, section []Key, conf *jsonr.Object) {
	for i := range section {
		k := &section[i]
		if k.Of&c.plugin == 0 || !k.ofNetwork() {
			continue
		}
		v := conf.Apart().At(k.Name)
		at := place + k.Name
		switch {
		case v.Missing():
		case v.IsObject() && len(k.Inside) > 0:
			c.encodeKeys(o, at+".", k.Inside, v.Object())
		default:
			o.Object(at, func(o *jsonw.Object) {
				o.String("from", c.From(at))
				o.Raw("value", v.Raw())
			})
		}
	}
}

// ofNetwork says that a key is about a network, and not about one call or about libcni.
func (k *Key) ofNetwork() bool {
	return !k.CNI || k.Name == table[keyIPAM].Name || k.Name == table[keyDNS].Name || k.Name == ipamTable[ipamType].Name
}

// Recorded returns what Record kept of what lies below a configuration; nil: nothing did.
func Recorded(data []byte) (*Below, error) {
	if len(data) == 0 {
		return nil, nil
	}
	o, err := jsonr.Parse(data)
	if err != nil {
		return nil, err
	}
	b := &Below{defaults: recordedLayer(o.At(fromDefaults)), template: recordedLayer(o.At(recordedTemplate))}
	if err := o.Err(); err != nil || b.defaults == nil && b.template == nil {
		return nil, err
	}
	return b, nil
}

// RecordedKey is a key of a network as its record has it.
type RecordedKey struct {
	Key   string `json:"key"`
	Value string `json:"value"` // JSON
	From  string `json:"from"`  // as of Completed.From
}

// RecordedKeys are the keys that Record kept.
func RecordedKeys(data []byte) (all []RecordedKey) {
	o, err := jsonr.Parse(data)
	if err != nil {
		return nil // nothing is recorded
	}
	for v := range o.At(recordedKeys).Object().Values() {
		k := RecordedKey{Key: v.Name(), Value: string(v.Object().At("value").Raw())}
		v.Object().At("from").String(&k.From)
		all = append(all, k)
	}
	return all
}

func recordedLayer(v jsonr.Value) *layer {
	if v.Missing() {
		return nil
	}
	o, l := v.Object(), &layer{}
	o.String("name", &l.name)
	o.String("file", &l.path)
	l.conf = parsed(textOf(o.At("conf").Object()))
	return l
}

func textOf(o *jsonr.Object) *jsonw.Object {
	text := &jsonw.Object{}
	for v := range o.Values() {
		put(text, v)
	}
	return text
}

// Without is what is recorded, with the defaults of today: for a template whose file is gone.
func (b *Below) Without(recorded *Below, name string) *Below {
	if recorded == nil || recorded.template == nil || recorded.template.name != name {
		return nil
	}
	now := &Below{template: recorded.template}
	if b != nil {
		now.defaults = b.defaults
	}
	return now
}
