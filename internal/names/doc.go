// Package names has the containers of a host find each other by name: it follows the
// records of attachments, keeps a table of the resolver, and answers the queries that
// capture brings.
package names
