// Package console is how lnctl speaks to a person or a program: tables, JSON, YAML, colours,
// errors, and what was probably meant by a word that is misspelt.
package console
