// Package sentinel has the type of errors that a package exports to be compared with by
// errors.Is.
package sentinel

// Error is such an error. A pointer to one at the package level is there before the program
// runs. What errors.New returns is made at each start, as most packages of the plugins are
// compiled without inlining: that touches a page of code of each package.
type Error struct{ Text string }

func (e *Error) Error() string { return e.Text }
