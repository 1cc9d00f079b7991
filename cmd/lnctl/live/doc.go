// Package live has the commands of lnctl that go on: watch says what comes and goes, top what
// containers send and receive.
package live
