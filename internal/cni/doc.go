// Package cni is the border with the CNI protocol (spec 1.1.0): it decodes
// what a runtime sends, once, and encodes what goes back. Behind it nothing
// knows of environment variables, JSON or error codes.
package cni
