// Package mesh has the services of networks that span hosts: it follows their definitions and
// their containers on other hosts, and brings what this host has of them to that. It answers
// lnctl, which changes definitions by it.
package mesh
