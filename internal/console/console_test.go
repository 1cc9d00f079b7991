package console

import (
	"errors"
	"strings"
	"testing"
)

// Text of JSON stays text in YAML, and the order of keys stays.
func TestYAML(t *testing.T) {
	t.Parallel()
	v := struct {
		Z string   `json:"z"`
		A []string `json:"a"`
		N int      `json:"n"`
		E []string `json:"e"`
	}{"true", []string{"1", "null", "10.1.0.0/24", "a: b", "fd00::1", "two\nlines"}, 7, []string{}}
	var out strings.Builder
	o := Output{Format: YAML}
	if err := o.Print(&out, v, nil); err != nil {
		t.Fatal(err)
	}
	want := "z: \"true\"\na:\n  - \"1\"\n  - \"null\"\n  - 10.1.0.0/24\n  - 'a: b'\n  - fd00::1\n  - |-\n    two\n    lines\nn: 7\ne: []\n"
	if out.String() != want {
		t.Errorf("got %s, want %s", &out, want)
	}
}

func TestGuess(t *testing.T) {
	t.Parallel()
	for args, want := range map[string]Format{
		"ls": Table, "--json x": JSON, "-o yaml": YAML, "-oyaml": YAML, "-o=yaml": YAML, "--output=wide": Wide, "--output json": JSON,
		"-- --json": Table, "-o": Table, "-o toml": Table, "--json -o table": Table,
	} {
		o := Output{Format: Table}
		if o.Guess(strings.Fields(args)); o.Format != want {
			t.Errorf("%s: %s, want %s", args, o.Format, want)
		}
	}
}

func TestBar(t *testing.T) {
	t.Parallel()
	for want, of := range map[string][2]uint64{
		"▁▁▁▁▁▁▁▁": {0, 253}, "▇▁▁▁▁▁▁▁": {1, 253}, "▇▇▇▇▁▁▁▁": {127, 253}, "▇▇▇▇▇▇▇▁": {252, 253}, "▇▇▇▇▇▇▇▇": {253, 253},
	} {
		if got := Bar(of[0], of[1]); got != want {
			t.Errorf("%v: %s, want %s", of, got, want)
		}
	}
	if got := Bar(5, 1<<63) + Bar(0, 0); got != "▇▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁" {
		t.Error(got)
	}
}

func TestPrintError(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	o := Output{Format: JSON}
	o.PrintError(&out, "x", errors.Join(errors.New("a <b>"), errors.New("c")), 1)
	if want := "{\n  \"code\": 1,\n  \"errors\": [\n    \"a <b>\",\n    \"c\"\n  ]\n}\n"; out.String() != want {
		t.Error(out.String())
	}
}
