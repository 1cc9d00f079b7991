package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/libnet-cni/libnet/internal/netconf"
)

// defaultBinDirs are where runtimes look for plugins.
var defaultBinDirs = []string{"/opt/cni/bin", "/usr/lib/cni", "/usr/libexec/cni"}

// installation is what runtimes find of libnet on this host.
type installation struct {
	confDir string
	binDirs []string
	files   []netconf.File
	below   []netconf.File // templates, and the node's defaults
	// installed are paths of plugins of ours.
	installed []string
}

// installationOf looks at a directory of configurations, and at those of plugins; empty:
// where runtimes look.
func installationOf(confDir, binDir string) installation {
	i := installation{confDir: confDir, binDirs: defaultBinDirs, files: netconf.Files(confDir), below: netconf.FilesBelow(netconf.LayersDir)}
	if binDir != "" {
		i.binDirs = []string{binDir}
	}
	for _, p := range netconf.Plugins() {
		if path, _ := i.find(p.String()); path != "" {
			i.installed = append(i.installed, path)
		}
	}
	return i
}

// find returns the first file of that name, and whether it can be run.
func (i installation) find(name string) (path string, runs bool) {
	for _, dir := range i.binDirs {
		file := filepath.Join(dir, name)
		if info, err := os.Stat(file); err == nil && info.Mode().IsRegular() {
			return file, info.Mode()&0o111 != 0
		}
	}
	return "", false
}

// findings are of configurations and binaries. A host where runtimes find nothing of
// libnet has none: it may be used as a library.
func (i installation) findings(ctx context.Context) []finding {
	if len(i.installed) == 0 && !slices.ContainsFunc(i.files, func(f netconf.File) bool { return f.Ours }) {
		return nil
	}
	return append(i.configurations(), i.binaries(ctx)...)
}

func (i installation) configurations() []finding {
	const about = "configurations"
	var all []finding
	add := func(found, advice string) { all = append(all, finding{About: about, Found: found, Advice: advice}) }
	for _, f := range i.below {
		if f.Err != nil {
			add(fmt.Sprintf("%s: %s", f.Path, strings.ReplaceAll(strings.ReplaceAll(f.Err.Error(), f.Path+": ", ""), "\n", "; ")), unreadable(f))
		}
	}
	for at, f := range i.files {
		if f.Err != nil {
			add(fmt.Sprintf("%s: %s", f.Path, strings.ReplaceAll(f.Err.Error(), "\n", "; ")), unreadable(f))
		}
		for _, k := range f.Keys {
			advice := "delete it: docs/configuration.md lists all keys"
			if k.Right != "" {
				advice = "write " + k.Right + `; with "strict": true a plugin refuses such a key`
			}
			add(fmt.Sprintf("%s: %s", f.Path, k), advice)
		}
		for _, o := range i.files[:at] {
			if f.Network != "" && f.Network == o.Network && (f.Ours || o.Ours) {
				add(fmt.Sprintf("%s and %s both have network %q: the first one counts", o.Path, f.Path, f.Network),
					fmt.Sprintf("delete %s, or rename it if %s is meant", o.Path, f.Path))
			}
			if a, b, overlap := overlapping(o, f); overlap {
				add(fmt.Sprintf("network %q (%s, %s) and network %q (%s, %s) overlap: the ADD of the second one is refused", o.Network, a, o.Path, f.Network, b, f.Path),
					`give one of them another subnet, or "auto"`)
			}
		}
	}
	if len(all) > 0 {
		return all
	}
	ok := finding{About: about, OK: true, Found: fmt.Sprintf("none in %s", i.confDir)}
	switch first := i.files; {
	case len(first) == 0 && len(i.installed) > 0:
		ok.OK, ok.Found = false, fmt.Sprintf("no configuration in %s, though %s is installed: a runtime that looks there attaches no container", i.confDir, i.installed[0])
		ok.Advice = "write one, as README.md shows, or name the directory that the runtime takes: --conf-dir"
	case len(first) > 0:
		ok.Found = fmt.Sprintf("%d in %s; a runtime that takes one alone takes %s (network %q)", len(first), i.confDir, filepath.Base(first[0].Path), first[0].Network)
	}
	return []finding{ok}
}

// unreadable says what to do about a file that is refused.
func unreadable(f netconf.File) string {
	switch {
	case errors.Is(f.Err, fs.ErrPermission):
		return "run lnctl doctor as root"
	case f.Below && filepath.Base(f.Path) == "defaults.json":
		return "ADD of every network is refused: write what is wanted; docs/templates.md says what may stand there"
	case f.Below:
		return "ADD of networks that name it is refused: write what is wanted; docs/templates.md says what may stand there"
	case f.Network == "":
		return "write it as JSON, or delete it: a runtime passes over it, or over all that come after it"
	}
	return "ADD is refused: write what is wanted; docs/configuration.md has all keys"
}

// overlapping finds subnets that two networks of ours both have.
func overlapping(a, b netconf.File) (x, y fmt.Stringer, overlap bool) {
	if a.Network == b.Network {
		return nil, nil, false
	}
	for _, x := range a.Subnets {
		for _, y := range b.Subnets {
			if x.Overlaps(y) {
				return x, y, true
			}
		}
	}
	return nil, nil, false
}

// binaries are the plugins that configurations name, and those of ours.
func (i installation) binaries(ctx context.Context) []finding {
	const about = "plugins"
	var all []finding
	add := func(found, advice string) { all = append(all, finding{About: about, Found: found, Advice: advice}) }
	asked := map[string]bool{}
	for _, f := range i.files {
		for _, name := range f.Plugins {
			path, runs := i.find(name)
			if asked[name] {
				continue
			}
			asked[name] = true
			switch {
			case path == "":
				add(fmt.Sprintf("%s asks for %s, which is not in %s", f.Path, name, strings.Join(i.binDirs, ", ")),
					"install it there (make install), or name the directory that the runtime takes: --bin-dir")
			case !runs:
				add(path+" is not executable", "chmod 755 "+path)
			}
		}
	}
	for _, path := range i.installed {
		if says := i.version(ctx, path); says != "" {
			add(fmt.Sprintf("%s is %s, and lnctl is %s", path, says, version), "install plugins and lnctl of one release, and not "+says+" beside "+version)
		}
	}
	if len(all) > 0 {
		return all
	}
	return []finding{{About: about, OK: true, Found: fmt.Sprintf("%d of libnet, of the release of lnctl", len(i.installed))}}
}

// versionWait is how long a plugin may take to say its version.
const versionWait = 5 * time.Second

// version is the version that a plugin says it has; empty: that of lnctl, or it says none.
func (i installation) version(ctx context.Context, path string) string {
	ctx, cancel := context.WithTimeout(ctx, versionWait)
	defer cancel()
	out, _ := exec.CommandContext(ctx, path, "--version").CombinedOutput() // one that cannot be run is found already
	line, _, _ := strings.Cut(string(out), "\n")
	words := strings.Fields(line)
	if len(words) == 0 || words[len(words)-1] == version || !strings.HasPrefix(words[len(words)-1], "v") {
		return ""
	}
	return words[len(words)-1]
}
