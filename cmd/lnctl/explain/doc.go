// Package explain is the command of lnctl that says what a configuration makes, and where
// each of its values comes from.
package explain
