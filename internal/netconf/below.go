package netconf

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/libnet-cni/libnet/internal/jsonr"
	"github.com/libnet-cni/libnet/internal/jsonw"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/plain"
	"github.com/libnet-cni/libnet/internal/sentinel"
)

// LayersDir has the node's defaults for networks, defaults.json, and templates/NAME.json for
// configurations that say "configFrom": "NAME".
const LayersDir = "/etc/cni/ln"

// FromConf is the origin of what the configuration itself says.
const FromConf = "conf"

const (
	fromDefaults = "defaults"
	fromTemplate = "template " // and its name
)

// ErrNoTemplate says that a configuration names a template of which there is no file.
var ErrNoTemplate error = &sentinel.Error{Text: "no such template"}

// Below is what lies below a configuration: the node's defaults and, above them, the template
// that the configuration names.
type Below struct {
	defaults, template *layer // nil: none
}

// layer is one of the files, or what a record keeps of it.
type layer struct {
	path, name string // the template's
	conf       *jsonr.Object
	final      bool // the configuration may say nothing that the template says
}

func defaultsFile(dir string) string       { return filepath.Join(dir, "defaults.json") }
func templateFile(dir, name string) string { return filepath.Join(dir, "templates", name+".json") }

// DirsBelow are the directories of which ReadBelow reads files.
func DirsBelow(dir string) []string { return []string{dir, filepath.Dir(templateFile(dir, "x"))} }

// ReadBelow reads what lies below a configuration by the files of a directory; nil: nothing does.
// The error of a template that has no file is ErrNoTemplate; what lies below without it is
// returned, too. Errors name the file, and the key of it.
func ReadBelow(dir string, conf *jsonr.Object) (*Below, error) {
	var b Below
	path := defaultsFile(dir)
	data, err := plain.ReadFile(path)
	if err == nil {
		b.defaults, err = readLayer(path, "", data)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	name, err := TemplateOf(conf)
	if name != "" && err == nil {
		path := templateFile(dir, name)
		data, err = plain.ReadFile(path)
		if err == nil {
			b.template, err = readLayer(path, name, data)
		} else if errors.Is(err, fs.ErrNotExist) {
			err = noTemplate{badKey(table[keyConfigFrom].Name, strconv.Quote(name), "want the name of a template: there is no "+path)}
		}
	}
	if b.defaults == nil && b.template == nil {
		return nil, err
	}
	return &b, err
}

// ErrBelow is of a configuration that may be well itself: the template or the defaults that it is
// laid upon cannot be used.
var ErrBelow error = &sentinel.Error{Text: "what a configuration is laid upon"}

// ofBelow is ErrBelow in other words.
type ofBelow struct{ error }

func (e ofBelow) Unwrap() []error { return []error{e.error, ErrBelow} }

// noTemplate is ErrNoTemplate in other words.
type noTemplate struct{ error }

func (e noTemplate) Unwrap() []error { return []error{e.error, ErrNoTemplate} }

// TemplateOf is the name of the template that a configuration names; empty: none.
func TemplateOf(conf *jsonr.Object) (name string, err error) {
	v := conf.Apart().At(table[keyConfigFrom].Name)
	if v.Missing() {
		return "", nil
	}
	name, is := v.Text()
	if !is || !model.ValidName(name) {
		return "", badKey(v.Place(), brief(v.Raw()), "want the name of a template: a letter or digit, then letters, digits, '_', '.', '-'")
	}
	return name, nil
}

func brief(raw []byte) string {
	const most = 80
	if len(raw) > most {
		return string(raw[:most]) + "…"
	}
	return string(raw)
}

// readLayer reads the file of a template, or of the defaults, which have no name. It refuses
// every key that has no effect there.
func readLayer(path, name string, data []byte) (*layer, error) {
	conf, err := jsonr.Parse(data)
	if err != nil {
		return nil, inFile(path, err)
	}
	l := &layer{path: path, name: name, conf: conf}
	if name != "" {
		conf.At(finalKey).Bool(&l.final)
		if err := conf.Err(); err != nil {
			return nil, inFile(path, err)
		}
		l.conf = without(conf, finalKey)
	}
	return l, inFile(path, checkLayer(l.conf, name == ""))
}

// finalKey is a key of templates alone.
const finalKey = "final"

// without returns an object without the keys of that name.
func without(o *jsonr.Object, key string) *jsonr.Object {
	text := &jsonw.Object{}
	for v := range o.Values() {
		if find([]Key{{Name: key}}, v.Name(), false) < 0 {
			put(text, v)
		}
	}
	return parsed(text)
}

func put(to *jsonw.Object, v jsonr.Value) {
	if v.Missing() {
		to.Raw(v.Name(), []byte("null"))
	} else {
		to.Raw(v.Name(), v.Raw())
	}
}

func parsed(text *jsonw.Object) *jsonr.Object {
	o, _ := jsonr.Parse(text.Bytes()) // of values that were read: never fails
	return o
}

// inFile names the file in an error about its content, which is one of the configuration.
func inFile(path string, err error) error {
	var syntax *jsonr.SyntaxError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &syntax):
		return badKey(path, "not valid JSON", syntax.Unwrap().Error())
	}
	return fmt.Errorf("%s: %w", path, err)
}

// ownKey says why a key is a configuration's alone: it is about one network or one call, or about
// where the records are, which must be found when defaults and templates are gone. Empty for
// other keys.
func ownKey(key int) string {
	switch key {
	case keyName, keyType, keyCNIVersion, keyPlugins:
		return "is a network's"
	case keyCapabilities:
		return "is read by libcni, in the configuration only"
	case keyInternal:
		return "is the configuration's own choice"
	case keyStateDir:
		return "tells where the records are, and the configuration alone can"
	case keyConfigFrom:
		return "names a template, and of a template none is made"
	case keyRuntimeConfig, keyArgs, keyPrevResult, keyValidAttachments, keyAttachments:
		return "is a runtime's"
	}
	return ""
}

// checkLayer refuses the keys that have no effect in a template, or in the defaults.
func checkLayer(o *jsonr.Object, defaults bool) error {
	kind := "template"
	if defaults {
		kind = "file of defaults"
	}
	for v := range o.Values() {
		if why := ownKey(find(table[:], v.Name(), false)); why != "" {
			return badKey(v.Name(), brief(rawOf(v)), "want no such key in a "+kind+": it "+why)
		}
	}
	f := finder{plugin: networks, strangers: true, all: true}
	f.walk(o.Apart(), table[:], false, true)
	for _, found := range append(f.found, f.strange...) {
		return found.refusal()
	}
	return nil
}

func rawOf(v jsonr.Value) []byte {
	if v.Missing() {
		return []byte("null")
	}
	return v.Raw()
}

// isBelow says whether a file by its place is one of what lies below configurations, and names
// the template.
func isBelow(path string) (is bool, template string) {
	name := strings.TrimSuffix(filepath.Base(path), ".json")
	if filepath.Base(filepath.Dir(path)) == "templates" {
		return true, name
	}
	return filepath.Base(path) == filepath.Base(defaultsFile("")), ""
}

// lintLayer says why a configuration cannot lie upon a file.
func lintLayer(path, name string, data []byte) error {
	l, err := readLayer(path, name, data)
	if err == nil && name != "" && !model.ValidName(name) {
		err = badKey(path, strconv.Quote(name), "want a letter or digit, then letters, digits, '_', '.', '-' before .json")
	}
	if err != nil {
		return err
	}
	var all []error
	for _, p := range []Plugin{Bridge, Overlay} {
		_, err := ReadNetwork(p, Source{Conf: only(p, table[:], l.conf)})
		if err != nil && !slices.ContainsFunc(all, func(e error) bool { return e.Error() == err.Error() }) {
			all = append(all, err)
		}
	}
	return errors.Join(all...)
}

// FilesBelow reads what lies below configurations, by a directory as LayersDir is. What is
// missing is left out.
func FilesBelow(dir string) []File {
	paths := []string{defaultsFile(dir)}
	templates, _ := filepath.Glob(templateFile(dir, "*")) // the pattern is right
	var all []File
	for _, path := range append(paths, templates...) {
		if f := ReadFile(path); !errors.Is(f.Err, fs.ErrNotExist) {
			all = append(all, f)
		}
	}
	return all
}
