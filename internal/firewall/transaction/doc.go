// Package transaction has the messages by which tables of nf_tables are asked for and changed,
// whatever their rules are for: all changes of a Batch hold, or none.
package transaction
