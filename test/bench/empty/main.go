// Command empty does nothing: what is left of its time is what the kernel and
// Go's runtime take to start and end a process.
package main

func main() {}
