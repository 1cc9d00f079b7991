// Command keys writes docs/configuration.md, the reference of the configuration keys, from the
// table of internal/netconf and the texts of its keydoc. With -check it writes nothing, and fails if
// the page is another.
package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/libnet-cni/libnet/internal/netconf"
	"github.com/libnet-cni/libnet/internal/netconf/keydoc"
)

func main() { os.Exit(run(os.Args[1:], os.Stderr)) }

func run(args []string, stderr io.Writer) int {
	flags := flag.NewFlagSet("keys", flag.ContinueOnError)
	flags.SetOutput(stderr)
	check := flags.Bool("check", false, "compare and write nothing")
	file := flags.String("file", "docs/configuration.md", "the page")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	if err := generate(*file, *check); err != nil {
		_, _ = fmt.Fprintln(stderr, err)
		return 1
	}
	return 0
}

func generate(file string, check bool) error {
	now := page()
	if !check {
		return os.WriteFile(file, now, 0o644)
	}
	was, err := os.ReadFile(file)
	if err == nil && !bytes.Equal(was, now) {
		err = errors.New("is not what internal/netconf says")
	}
	if err != nil {
		return fmt.Errorf("%s: %w: run make keys", file, err)
	}
	return nil
}

const head = `# Configuration

Every key of the plugins. This page is written from the table of internal/netconf by
` + "`make keys`" + `; a check in ` + "`make lint`" + ` compares.

A key names its place: ` + "`ipam.ranges[][].subnet`" + ` stands in each range of the sets ` + "`ranges`" + ` in
the object ` + "`ipam`" + `. In brackets: the type of its value; the default, if there is one; and whose key
it is. *Ours* are keys of libnet only. A key of a reference plugin (bridge, host-local, portmap,
firewall, all v1.9.1) has its name, default and meaning; keys of *CNI* are those of the
specification and its conventions. *DEL*: DEL and GC read it, too; they take what they can read of a
configuration and never refuse one.

A value of a wrong type, or outside its range, is an error of code 7 that names the key with its
place, the value, and what would be right. So are keys that exclude each other.

## Misspelt keys

A key that the plugin does not know has no effect. It may be a vendor's, so it is no error; but a
misspelt ` + "`gatewaymod`" + ` leaves a network open. ADD, CHECK and STATUS therefore print a line on stderr
that names

* a key that differs by one to three letters from one of the plugin, or continues it, or is cut
  short; ` + "`_` and `-`" + ` do not count;
* a key of another plugin of libnet, as ` + "`isolated`, which is overlay-ln's, for bridge-ln" + `;
* a key that is there twice.

With ` + "`\"strict\": true`" + ` that is an error of code 7, which names key, value and the right key, and
nothing is changed. DEL and GC never look. Keys that containerd, CRI-O, Podman, nerdctl, Multus,
flannel and libcni are known to write are never named, nor is a key with a dot or a slash in it.
In ` + "`ipam`" + ` of another type than ` + "`\"ipam-ln\"`" + ` no key is ours, and the binary ipam-ln looks at ` + "`ipam`" + `
only: the rest of the configuration is its caller's.

**Case** does not matter, as in Go's encoding/json: ` + "`GatewayMode`" + ` is ` + "`gatewayMode`" + `. containerd
relies on it, as it sends ` + "`HostPort`" + `. If a key is there in two spellings, the one as on this page
counts, or else the last. Keys of ` + "`capabilities`" + ` must be spelt exactly: libcni takes no other
spelling, so ` + "`portmappings`" + ` publishes nothing, and is named on stderr.
`

// section is the keys of one plugin.
type section struct {
	plugin netconf.Plugin
	says   string
	// skip are keys whose description is in the section of these plugins.
	skip netconf.Plugin
	// closed are keys of which those inside are in another section.
	closed []string
}

func sections() []section {
	return []section{
		{netconf.Bridge, "Their effects: [bridge-ln](../plugins/bridge-ln/README.md). The keys inside `ipam` and of a range are those of [ipam-ln](#ipam-ln).", 0, []string{"ipam", "ipRanges"}},
		{netconf.Overlay, "The keys of [bridge-ln](#bridge-ln), different where this section says so, and its own. Their effects: [overlay-ln](../plugins/overlay-ln/README.md).", netconf.Bridge, nil},
		{netconf.IPAM, "Behind bridge-ln and overlay-ln it is a function call, behind any other plugin a binary, which reads only these keys of the configuration. Their effects: [ipam-ln](../plugins/ipam-ln/README.md). A range of `runtimeConfig.ipRanges` is as one of `ipam.ranges`.", 0, []string{"ipRanges"}},
		{netconf.Portmap, "Their effects: [portmap-ln](../plugins/portmap-ln/README.md). The keys of a port are those of [bridge-ln](#bridge-ln).", 0, []string{"portMappings"}},
	}
}

// page returns docs/configuration.md.
func page() []byte {
	var out bytes.Buffer
	out.WriteString(head)
	out.WriteString("\n## Every plugin\n\n")
	for _, k := range keydoc.Table(netconf.Bridge) {
		if common(k) {
			entry(&out, k.Name, k)
		}
	}
	for _, s := range sections() {
		fmt.Fprintf(&out, "\n## %s\n\n", s.plugin)
		wrap(&out, "", s.says)
		out.WriteByte('\n')
		s.list(&out, "", keydoc.Table(s.plugin))
	}
	return out.Bytes()
}

// common says that a key is one of all plugins, and of CNI.
func common(k keydoc.Key) bool {
	for _, p := range netconf.Plugins() {
		if k.Of&p == 0 {
			return false
		}
	}
	return len(k.Inside) == 0 || k.Exact // whose keys are those of runtimeConfig
}

func (s section) list(out *bytes.Buffer, in string, keys []keydoc.Key) {
	for _, k := range keys {
		if in == "" && common(k) {
			continue
		}
		path := in + k.Name
		if k.Of&s.skip == 0 {
			entry(out, path, k)
		} else if k.Overlay != "" {
			wrap(out, "* ", "`"+path+"`: "+k.Overlay)
		}
		if !slices.Contains(s.closed, k.Name) {
			s.list(out, path+between(k), k.Inside)
		}
	}
}

// between is what stands before the keys inside another.
func between(k keydoc.Key) string {
	switch {
	case strings.Contains(k.Type, "range sets"):
		return "[][]."
	case strings.HasPrefix(k.Type, "list"):
		return "[]."
	}
	return "."
}

func entry(out *bytes.Buffer, path string, k keydoc.Key) {
	facts := []string{k.Type}
	if k.Default != "" {
		facts = append(facts, "default "+quote(k.Default))
	}
	facts = append(facts, whose(k))
	if k.Cleanup {
		facts = append(facts, "DEL")
	}
	wrap(out, "* ", fmt.Sprintf("`%s` (%s): %s", path, strings.Join(facts, "; "), k.Does))
}

func whose(k keydoc.Key) string {
	switch {
	case k.CNI:
		return "CNI"
	case k.From == "":
		return "ours"
	}
	return string(k.From)
}

// quote marks a default that is a value of JSON.
func quote(s string) string {
	if strings.ContainsAny(s[:1], `"{[-0123456789`) || s == "true" || s == "false" {
		return "`" + s + "`"
	}
	return s
}

// wrap writes a paragraph in lines of 100 characters. Text in backquotes stays whole.
func wrap(out *bytes.Buffer, bullet, text string) {
	const width = 100
	line := bullet
	indent := strings.Repeat(" ", len(bullet))
	for i, word := range words(text) {
		switch {
		case i == 0:
			line += word
		case utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > width:
			out.WriteString(line + "\n")
			line = indent + word
		default:
			line += " " + word
		}
	}
	out.WriteString(line + "\n")
}

// words splits a text at its blanks, but for those in backquotes.
func words(text string) (all []string) {
	quoted, from := false, 0
	for i, r := range text {
		switch {
		case r == '`':
			quoted = !quoted
		case r == ' ' && !quoted:
			all, from = append(all, text[from:i]), i+1
		}
	}
	return append(all, text[from:])
}
