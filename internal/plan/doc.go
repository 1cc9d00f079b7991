// Package plan derives what a network and its attachments are to be in the kernel: bridge,
// link, tunnel and rules. It is pure: what can be refused is refused here, and what ADD
// applies, CHECK verifies.
package plan
