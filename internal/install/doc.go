// Package install puts the plugins and a configuration where a runtime looks for them, and takes them
// away again. A runtime may read both at any moment: it finds a file whole, or not at all.
package install
