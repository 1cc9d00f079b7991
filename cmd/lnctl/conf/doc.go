// Package conf has the commands of lnctl that are about configurations of networks: what is
// wrong with one, what one asks for, and a new one.
package conf
