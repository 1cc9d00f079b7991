package conf

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/libnet-cni/libnet/internal/console"
	"github.com/libnet-cni/libnet/internal/netconf"
)

// template is a line of template ls.
type template struct {
	Name string `json:"name"`
	File string `json:"file"`
	Use  []use  `json:"use"`
}

// use is a configuration that names a template.
type use struct {
	Network string `json:"network"`
	File    string `json:"file"`
}

func (u use) String() string { return fmt.Sprintf("%s (network %q)", u.File, u.Network) }

// TemplateCommand is "lnctl template".
func TemplateCommand(o *console.Output, confDir string) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "template",
		Short: "List the templates that configurations name, remove one that none names",
		Args:  console.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	ls := &cobra.Command{
		Use:     "ls",
		Aliases: []string{"list"},
		Short:   "List the templates of this host, and the networks whose configurations name them",
		Args:    console.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			all := templates(confDir)
			return o.Print(cmd.OutOrStdout(), all, func(out io.Writer) error { return listTemplates(out, all) })
		},
	}
	rm := &cobra.Command{
		Use:   "rm NAME",
		Short: "Delete a template that no configuration names",
		Long: "Delete the file of a template. It is refused while a configuration names the template, and these are listed: the next ADD\n" +
			"of such a network would fail. A network that was made from it, and whose configuration is gone, goes by its record.",
		Args: console.One("the name of one template; lnctl template ls lists them"),
		ValidArgsFunction: func(_ *cobra.Command, args []string, begun string) (names []string, _ cobra.ShellCompDirective) {
			for _, t := range templates(confDir) {
				if len(args) == 0 && strings.HasPrefix(t.Name, begun) {
					names = append(names, t.Name)
				}
			}
			return names, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := removeTemplate(confDir, args[0]); err != nil {
				return err
			}
			removed := struct {
				Removed []string `json:"removed"`
			}{args}
			return o.Print(cmd.OutOrStdout(), removed, func(out io.Writer) error {
				_, err := fmt.Fprintf(out, "removed template %s\n", args[0])
				return err
			})
		},
	}
	for _, c := range []*cobra.Command{ls, rm} {
		c.Flags().StringVar(&confDir, "conf-dir", confDir, "where the runtime's configurations of networks are")
		cmd.AddCommand(c)
	}
	return cmd
}

// templates are those of this host, by name.
func templates(confDir string) []template {
	files, all := netconf.Files(confDir), []template{}
	for _, f := range netconf.FilesBelow(netconf.LayersDir) {
		if f.Template != "" {
			all = append(all, template{f.Template, f.Path, usesOf(files, f.Template)})
		}
	}
	return all
}

func usesOf(files []netconf.File, template string) []use {
	all := []use{}
	for _, f := range files {
		if slices.Contains(f.Templates, template) {
			all = append(all, use{f.Network, f.Path})
		}
	}
	return all
}

func removeTemplate(confDir, name string) error {
	all := templates(confDir)
	i := slices.IndexFunc(all, func(t template) bool { return t.Name == name })
	if i < 0 {
		var names []string
		for _, t := range all {
			names = append(names, t.Name)
		}
		return fmt.Errorf("there is no template %q in %s; there are: %s", name, filepath.Join(netconf.LayersDir, "templates"), console.OrDash(strings.Join(names, ", ")))
	}
	if users := all[i].Use; len(users) > 0 {
		var texts []string
		for _, u := range users {
			texts = append(texts, u.String())
		}
		return fmt.Errorf("template %q: %s: change or delete what names it first", name, strings.Join(texts, ", "))
	}
	err := os.Remove(all[i].File)
	if errors.Is(err, fs.ErrNotExist) { // it went meanwhile
		return nil
	}
	return err
}

func listTemplates(out io.Writer, all []template) error {
	var rows [][]string
	for _, t := range all {
		var networks []string
		for _, u := range t.Use {
			networks = append(networks, u.Network)
		}
		rows = append(rows, []string{t.Name, console.OrDash(strings.Join(networks, ", ")), t.File})
	}
	return console.WriteTable(out, []string{"NAME", "NETWORKS", "FILE"}, rows)
}
