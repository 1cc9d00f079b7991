// Package lntest holds what tests of several packages share: throw-away network namespaces.
package lntest
