// Package resolver answers DNS queries of containers for the names of containers.
//
// It is pure: a Table has the containers of each network, and Respond makes an answer
// out of a query, or says that the query is for another server. How queries come
// here, and how those of other servers get there, is in internal/capture.
package resolver
