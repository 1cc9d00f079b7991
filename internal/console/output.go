package console

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"
)

// Format is how a command prints what it found.
type Format string

// The formats. The zero value is Table.
const (
	Table Format = "table"
	Wide  Format = "wide" // Table with columns that are seldom wanted
	JSON  Format = "json"
	YAML  Format = "yaml"
)

// Formats are all of them, in the order of the help text.
func Formats() []string { return []string{string(Table), string(Wide), string(JSON), string(YAML)} }

var _ pflag.Value = (*Format)(nil)

// Set is of pflag.Value.
func (f *Format) Set(s string) error {
	for _, known := range Formats() {
		if s == known {
			*f = Format(s)
			return nil
		}
	}
	return fmt.Errorf("want one of %s", strings.Join(Formats(), ", "))
}

// String is of pflag.Value.
func (f *Format) String() string { return string(*f) }

// Type is of pflag.Value.
func (f *Format) Type() string { return "format" }

// Output prints in the format that the command line asks for.
type Output struct{ Format Format }

// AddFlags adds --output, and --json as a short form of it. Of several the last one counts.
func (o *Output) AddFlags(flags *pflag.FlagSet) {
	o.Format = Table
	flags.VarP(&o.Format, "output", "o", "how to print: "+strings.Join(Formats(), ", "))
	flags.BoolFunc("json", "the same as -o json", func(s string) error {
		if s == "true" {
			return o.Format.Set(string(JSON))
		}
		return nil
	})
}

// Wide says that the columns that are seldom wanted are, too.
func (o *Output) Wide() bool { return o.Format == Wide }

// Print writes v as JSON or YAML, or what text writes.
func (o *Output) Print(out io.Writer, v any, text func(io.Writer) error) error {
	switch o.Format {
	case JSON:
		return writeJSON(out, v)
	case YAML:
		return writeYAML(out, v)
	}
	return text(out)
}

// failure is an error as a program reads it.
type failure struct {
	Code   int      `json:"code"`   // the exit status
	Errors []string `json:"errors"` // one for each error that was joined
}

// PrintError writes an error: for a person a line of the program, or as JSON or YAML.
func (o *Output) PrintError(out io.Writer, program string, err error, code int) {
	text := func(out io.Writer) error {
		_, err := fmt.Fprintf(out, "%s: %v\n", program, err)
		return err
	}
	_ = o.Print(out, failure{code, strings.Split(err.Error(), "\n")}, text) // there is no other place for it
}

// Guess takes the format from a command line that could not be parsed.
func (o *Output) Guess(args []string) {
	for i, arg := range args {
		value, given := strings.CutPrefix(arg, "--output=")
		switch {
		case arg == "--":
			return
		case arg == "--json":
			value, given = string(JSON), true
		case (arg == "-o" || arg == "--output") && i+1 < len(args):
			value, given = args[i+1], true
		case strings.HasPrefix(arg, "-o"):
			value, given = strings.TrimPrefix(arg[len("-o"):], "="), true
		}
		if given {
			_ = o.Format.Set(value) // another value is what could not be parsed
		}
	}
}

func writeJSON(out io.Writer, v any) error {
	enc := json.NewEncoder(out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// writeYAML goes by JSON, so that both have the same keys in the same order.
func writeYAML(out io.Writer, v any) error {
	var text bytes.Buffer
	if err := writeJSON(&text, v); err != nil {
		return err
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(text.Bytes(), &doc); err != nil {
		return err
	}
	plain(&doc)
	enc := yaml.NewEncoder(out)
	enc.SetIndent(2)
	return errors.Join(enc.Encode(&doc), enc.Close())
}

// plain takes the style of JSON from a document.
func plain(n *yaml.Node) {
	n.Style = 0
	for _, inside := range n.Content {
		plain(inside)
	}
}
