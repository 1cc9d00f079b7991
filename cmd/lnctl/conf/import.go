package conf

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"

	"github.com/libnet-cni/libnet/internal/console"
	"github.com/libnet-cni/libnet/internal/jsonr"
	"github.com/libnet-cni/libnet/internal/netconf"
)

// importedKey is a key of the network as it was, and what it becomes.
type importedKey struct {
	From  string `json:"from"`
	Value string `json:"value"`
	To    string `json:"to"` // empty: it has no counterpart
	Note  string `json:"note,omitempty"`
}

// imported is a network of another program as a configuration of ours.
type imported struct {
	Network string          `json:"network"`
	Of      string          `json:"of"`
	Keys    []importedKey   `json:"keys"`
	Hints   []string        `json:"hints"`
	File    string          `json:"file,omitempty"`    // that was written
	Skipped string          `json:"skipped,omitempty"` // why no configuration makes it
	Config  json.RawMessage `json:"config,omitempty"`

	checked json.RawMessage // what lint looks at, if not Config
}

// importing is what import was asked for.
type importing struct {
	confDir, prefix, version string
	write                    bool
}

// ImportCommand is "lnctl import".
func ImportCommand(o *console.Output, confDir string) *cobra.Command {
	var w importing
	cmd := &cobra.Command{
		Use:   "import FILE",
		Short: "Turn a network of Docker, Podman or the reference plugins into a configuration",
		Long: "Read what docker network inspect or podman network inspect printed, or a configuration of the reference plugins, and print\n" +
			"the same network as a configuration of bridge-ln, key by key: what each becomes, or why it has no counterpart. FILE may be -.\n" +
			"A macvlan or ipvlan becomes one of the reference plugin of that name, with ipam-ln. Of several networks those that can\n" +
			"are imported, and the exit status is 1 if one cannot. --write puts it into the runtime's directory, never over another file.",
		Args: console.One("one file, or -"),
		RunE: func(cmd *cobra.Command, args []string) error {
			data, err := readAll(args[0], cmd.InOrStdin())
			if err != nil {
				return err
			}
			all, err := w.read(data)
			if err != nil {
				err = fmt.Errorf("%s: %w", args[0], err)
			}
			done, errs := []imported{}, []error{err}
			for _, one := range all {
				if err := w.finish(cmd, &one); err != nil {
					errs = append(errs, err)
					continue
				}
				done = append(done, one)
			}
			if err == nil && !slices.ContainsFunc(done, func(one imported) bool { return one.Skipped == "" }) && len(done) == len(all) {
				errs = append(errs, errors.New("no network was imported"))
			}
			if len(done) > 0 {
				errs = append(errs, o.Print(cmd.OutOrStdout(), done, func(out io.Writer) error { return writeImported(out, done) }))
			}
			return errors.Join(errs...)
		},
	}
	flags := cmd.Flags()
	flags.BoolVar(&w.write, "write", false, "write the configuration into --conf-dir")
	flags.StringVar(&w.confDir, "conf-dir", confDir, "directory of the runtime's configurations")
	flags.StringVar(&w.prefix, "file-prefix", "50", "beginning of the file's name: containerd and CRI-O take the first file")
	flags.StringVar(&w.version, "cni-version", "1.0.0", "cniVersion of what has none: 1.1.0 where the runtime takes it (containerd from 2.0)")
	return cmd
}

func readAll(path string, stdin io.Reader) ([]byte, error) {
	if path == "-" {
		return io.ReadAll(stdin)
	}
	return os.ReadFile(path)
}

// read tells of which program the networks are. Those that can be read are returned with the
// error of the others.
func (w importing) read(data []byte) ([]imported, error) {
	var networks []map[string]any
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	if err := dec.Decode(&networks); err != nil {
		return w.single(data)
	}
	if len(networks) == 0 {
		return nil, errors.New("no network is in it")
	}
	var all []imported
	var errs []error
	for _, n := range networks {
		one, err := w.foreign(n)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		all = append(all, one)
	}
	return all, errors.Join(errs...)
}

// single reads what is no list: a network of Docker or Podman, or a configuration.
func (w importing) single(data []byte) ([]imported, error) {
	file, err := jsonr.Parse(data)
	if err != nil {
		return nil, err
	}
	if file.Has("Driver") || file.Has("driver") {
		var n map[string]any
		dec := json.NewDecoder(bytes.NewReader(data))
		dec.UseNumber()
		if err := dec.Decode(&n); err != nil {
			return nil, err
		}
		one, err := w.foreign(n)
		if err != nil {
			return nil, err
		}
		return []imported{one}, nil
	}
	if !file.Has("plugins") && !file.Has("type") {
		return nil, errors.New("want what docker network inspect or podman network inspect prints, or a configuration of CNI")
	}
	r := reference{}
	list, err := r.list(file, w.version)
	if err != nil {
		return nil, err
	}
	var name string
	file.String("name", &name)
	one, err := encoded(list, name, "the reference plugins", r.keys, r.hints)
	return []imported{one}, err
}

func (w importing) foreign(n map[string]any) (imported, error) {
	f := foreign{bridgeThere: func(name string) bool { _, err := net.InterfaceByName(name); return err == nil }}
	of := "Docker"
	var err error
	if _, is := n["Driver"]; is {
		err = f.docker(n)
	} else if _, is := n["driver"]; is {
		of = "Podman"
		f.podman(n)
	} else {
		return imported{}, errors.New("no network of Docker or Podman: it has no driver")
	}
	if why := skipped(""); errors.As(err, &why) {
		return imported{Network: f.name, Of: of, Keys: []importedKey{}, Hints: []string{}, Skipped: string(why)}, nil
	}
	if err != nil {
		return imported{}, err
	}
	list, checked, err := f.file(w.version)
	if err != nil {
		return imported{}, err
	}
	one, err := encoded(list, f.name, of, f.keys, f.hints)
	if err == nil && f.onParent() {
		one.checked, err = json.Marshal(checked)
	}
	return one, err
}

func encoded(list *object, name, of string, keys []importedKey, hints []string) (imported, error) {
	var text bytes.Buffer
	enc := json.NewEncoder(&text)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	err := enc.Encode(list)
	return imported{Network: name, Of: of, Keys: keys, Hints: append([]string{}, hints...), Config: text.Bytes()}, err
}

// finish looks at a configuration as ADD would, and writes it if that is asked for.
func (w importing) finish(cmd *cobra.Command, one *imported) error {
	if one.Skipped != "" {
		return nil
	}
	path, checked := filepath.Join(w.confDir, w.prefix+"-"+one.Network+".conflist"), one.checked
	if checked == nil {
		checked = one.Config
	}
	for _, f := range lint(netconf.ReadData(path, checked)) {
		if f.Severity == bad {
			return fmt.Errorf("network %q: ADD would refuse it: %s", one.Network, f.Found)
		}
	}
	if !w.write {
		return nil
	}
	unlock, err := lockDir(cmd.Context(), w.confDir)
	if err != nil {
		return err
	}
	defer unlock()
	for _, f := range netconf.Files(w.confDir) {
		if f.Network == one.Network {
			return fmt.Errorf("network %q is there already: %s", one.Network, f.Path)
		}
	}
	one.File = path
	return writeNew(path, one.Config)
}

func writeImported(out io.Writer, all []imported) error {
	var errs []error
	line := func(format string, args ...any) {
		_, err := fmt.Fprintf(out, format+"\n", args...)
		errs = append(errs, err)
	}
	for _, one := range all {
		if one.Skipped != "" {
			line("network %s of %s is not imported: %s\n", one.Network, one.Of, one.Skipped)
			continue
		}
		line("network %s of %s\n", one.Network, one.Of)
		var rows [][]string
		for _, k := range one.Keys {
			to := k.To
			if to == "" {
				to = "none"
			}
			rows = append(rows, []string{k.From, console.OrDash(k.Value), to, console.OrDash(k.Note)})
		}
		errs = append(errs, console.WriteTable(out, []string{"KEY", "VALUE", "BECOMES", "NOTE"}, rows))
		for _, h := range one.Hints {
			line("! %s", h)
		}
		if one.File != "" {
			line("\nwritten to %s", one.File)
			continue
		}
		line("\n%s", bytes.TrimSpace(one.Config))
	}
	return errors.Join(errs...)
}
