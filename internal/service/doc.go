// Package service says what a service is: one address, and the containers behind it. It
// is pure: it reads, checks, selects and divides. Package balancer brings a service
// into the kernel.
package service
