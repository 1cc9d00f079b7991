// Package balancer keeps the services of this host: their records, their backends, which
// come with ADD and go with DEL, and what of them is in the kernel. Everything is made from
// the records, so that what a killed process left half done the next call completes.
package balancer
