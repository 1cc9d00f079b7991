// Package graph draws the networks of a host, or of several, with their containers: as text,
// as a picture (SVG), and as a page (HTML) that needs nothing else.
package graph
