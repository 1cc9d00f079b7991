package jsonr

import (
	"errors"
	"strings"
	"testing"
)

// A key spelt exactly comes before others, and of equal ones the last one counts.
func TestCase(t *testing.T) {
	for text, want := range map[string]string{
		`{"Key":1}`:                 "1",
		`{"key":1,"KEY":2}`:         "1",
		`{"KEY":2,"key":1}`:         "1",
		`{"KEY":1,"Key":2}`:         "2",
		`{"key":1,"key":2,"KEY":3}`: "2",
		`{"\u006bey":1}`:            "1",
		`{"\u212aey":1}`:            "", // the Kelvin sign
		`{"key":null}`:              "",
		`{"key":null,"KEY":1}`:      "",
		`{}`:                        "",
		`{"keys":1,"ke":2,"":3}`:    "",
	} {
		o, err := Parse([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		v := o.At("key")
		if string(v.Raw()) != want || v.Missing() != (want == "") {
			t.Errorf("%s: %q, want %q", text, v.Raw(), want)
		}
	}
}

// The first wrong value is the error, with its place, the value and what is wanted.
func TestErrors(t *testing.T) {
	for text, want := range map[string]string{
		`[]`:                               `the configuration: []: want an object`,
		` 5 `:                              `the configuration: 5 : want an object`,
		`{"a":[{"b":7},{"b":"x"}]}`:        `a[1].b: "x": want a whole number`,
		`{"a":[[{"b":1}],5]}`:              `a[0]: [{"b":1}]: want an object`,
		`{"a":{}}`:                         `a: {}: want a list`,
		`{"a":[null]}`:                     `a[0]: null: want an object`,
		`{"s":1}`:                          `s: 1: want a string`,
		`{"t":"true"}`:                     `t: "true": want true or false`,
		`{"l":[1]}`:                        `l: [1]: want a list of strings`,
		`{"ip":"10.1"}`:                    `ip: "10.1": want an address`,
		`{"s":` + long(200) + `}`:          `s: ` + long(200)[:80] + `…: want a string`,
		`{"s":[],"t":1}`:                   `s: []: want a string`,
		`{"o":7}`:                          `o: 7: want an object`,
		`{"o":{"p":"10.1.0.1/33"}}`:        `o.p: "10.1.0.1/33": want a prefix`,
		`{"o":{}}`:                         `o.p: missing: want a prefix`,
		`{"a":[{"b":1}],"s":"x","o":null}`: `o.p: missing: want a prefix`,
	} {
		o, err := Parse([]byte(text))
		if err == nil {
			for _, item := range o.At("a").Items() {
				item.Object().At("b").Int(new(int))
			}
			o.String("s", new(string))
			o.At("t").Bool(new(bool))
			_ = o.At("l").Strings()
			_ = o.At("ip").Addr()
			_ = o.At("o").Object().At("p").Prefix()
			err = o.Err()
		}
		var bad *Error
		if !errors.As(err, &bad) || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s:\n got %v\nwant %s", text, err, want)
		}
	}
	for _, text := range []string{"", "{", `{"a":1,}`, "{}{}", `{"a":tru}`} {
		var bad *SyntaxError
		if _, err := Parse([]byte(text)); !errors.As(err, &bad) {
			t.Errorf("%s: %v, want a SyntaxError", text, err)
		}
	}
}

func long(n int) string { return "[" + strings.Repeat(" ", n) + "]" }

// An object read apart fails nothing else.
func TestApart(t *testing.T) {
	o, err := Parse([]byte(`{"a":1,"b":{"c":"x"}}`))
	if err != nil {
		t.Fatal(err)
	}
	apart := o.Apart()
	apart.String("a", new(string))
	if apart.Err() == nil || o.Err() != nil {
		t.Errorf("apart %v, the object %v", apart.Err(), o.Err())
	}
	inner := o.At("b").Object()
	var names []string
	for v := range o.Values() {
		names = append(names, v.Name())
	}
	n := 5
	inner.At("c").Int(&n)
	if n != 5 || o.Err() == nil || inner.Place() != "b" || strings.Join(names, " ") != "a b" || !o.Has("B") || o.Has("c") {
		t.Errorf("%d, %v, %s, %v", n, o.Err(), inner.Place(), names)
	}
}
