// Package netns opens, makes, identifies and enters network namespaces, and opens
// sockets and sysctls inside of one without a thread that has to stay there.
package netns
