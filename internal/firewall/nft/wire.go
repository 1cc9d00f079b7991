package nft

import (
	"bytes"
	"errors"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/firewall"
	"github.com/libnet-cni/libnet/internal/firewall/ruleset"
	"github.com/libnet-cni/libnet/internal/firewall/transaction"
	"github.com/libnet-cni/libnet/internal/nfnl"
)

// The nf_tables messages we need.

// dump asks for all objects that match and calls fn with the attributes of
// each. One that others changed meanwhile is ERESTART.
func (c *conn) dump(typ, family uint8, put func(*nfnl.Attrs), fn func(attrs []byte) error) error {
	return c.nl.Dump(transaction.Message(typ, 0, family, put), func(a nfnl.Answer) error { return fn(a.Attrs) })
}

// ask sends requests for single objects together and calls fn with the answer
// to each, in order: its attributes, nil if it is not there (ENOENT).
func (c *conn) ask(requests []nfnl.Message, fn func(i int, attrs []byte) error) error {
	return transaction.Ask(c.nl, requests, fn)
}

func askTable(family uint8) nfnl.Message { return transaction.GetTable(firewall.TableName, family) }

func askSet(s *ruleset.Set) nfnl.Message {
	return transaction.Message(unix.NFT_MSG_GETSET, 0, s.Family, func(a *nfnl.Attrs) {
		a.String(unix.NFTA_SET_TABLE, firewall.TableName)
		a.String(unix.NFTA_SET_NAME, s.Name)
	})
}

func askChain(family uint8, name string) nfnl.Message {
	return transaction.GetChain(firewall.TableName, family, name)
}

func askElem(e ruleset.Elem) nfnl.Message { return transaction.GetElem(firewall.TableName, e) }

// holds returns whether each object asked for is there.
func (c *conn) holds(requests ...nfnl.Message) ([]bool, error) {
	there := make([]bool, len(requests))
	err := c.ask(requests, func(i int, attrs []byte) error {
		there[i] = attrs != nil
		return nil
	})
	return there, err
}

// ruleCount reads the answer to askChain: -1 if the chain is not there.
func ruleCount(attrs []byte) int {
	if attrs == nil {
		return -1
	}
	return int(nfnl.Uint32(nfnl.Find(attrs, unix.NFTA_CHAIN_USE)))
}

// found is what stands at the key of an element that was looked for.
type found struct {
	ruleset.Elem // without key: nothing stands there
	asked        ruleset.Elem
}

func (f found) missing() bool { return f.Key == nil }

// manyAsked is how many elements of one set are asked for one by one: for more, a
// list of the set comes cheaper, whatever else it holds.
const manyAsked = 512

// look returns what stands at the keys of elems, in their order. Where many of a
// network's set are looked for, one list of the set comes cheaper than a question
// for each: the sets of networks hold little else.
func (c *conn) look(elems []ruleset.Elem) ([]found, error) {
	all, _, err := c.lookAlso(elems)
	return all, err
}

// lookAlso is look and, for other objects in the same breath, holds.
func (c *conn) lookAlso(elems []ruleset.Elem, also ...nfnl.Message) (all []found, there []bool, err error) {
	all, there = make([]found, len(elems)), make([]bool, len(also))
	requests := make([]nfnl.Message, 0, len(elems)+len(also))
	asked := make([]int, 0, len(elems))
	var many map[*ruleset.Set]int
	var listed map[*ruleset.Set]list
	if len(elems) > transaction.MaxAsked {
		many, listed = map[*ruleset.Set]int{}, map[*ruleset.Set]list{}
		for _, e := range elems {
			many[e.Set]++
		}
	}
	for i, e := range elems {
		all[i].asked = e
		if many[e.Set] > manyAsked || many[e.Set] > transaction.MaxAsked && slices.Contains(ruleset.NetworkSets, e.Set) {
			if listed[e.Set].at == nil {
				if listed[e.Set], err = c.list(e.Set); err != nil {
					return nil, nil, err
				}
			}
			if at, ok := listed[e.Set].at[e.Slot()]; ok {
				all[i].Elem = listed[e.Set].elems[at]
			}
			continue
		}
		requests, asked = append(requests, askElem(e)), append(asked, i)
	}
	err = c.ask(append(requests, also...), func(n int, attrs []byte) error {
		if n >= len(asked) {
			there[n-len(asked)] = attrs != nil
			return nil
		}
		i := asked[n]
		return ruleset.DecodeElems(elems[i].Set, attrs, func(e ruleset.Elem) {
			if e.Same(elems[i]) && bytes.Equal(e.End, elems[i].End) { // of intervals the kernel gives one around it, too
				all[i].Elem = e
			}
		})
	})
	return all, there, err
}

// list is the elements of a set, and where among them those with a key are.
type list struct {
	elems []ruleset.Elem
	at    map[ruleset.Slot]int
}

func (c *conn) list(s *ruleset.Set) (list, error) {
	elems, err := c.each(s)
	l := list{elems[:0], make(map[ruleset.Slot]int, len(elems))}
	for _, e := range elems {
		slot := e.Slot()
		if _, again := l.at[slot]; !again {
			l.at[slot] = len(l.elems)
			l.elems = append(l.elems, e)
		}
	}
	return l, err
}

// elems returns all elements of s, each once; a set that is not there has none.
// While a set is growing or shrinking the kernel lists some twice (its walk over a
// hash table begins again when that is resized).
func (c *conn) elems(s *ruleset.Set) ([]ruleset.Elem, error) {
	all, err := c.each(s)
	if len(all) > 1 {
		all = ruleset.Dedupe(all)
	}
	return all, err
}

// each is elems that may have one twice.
func (c *conn) each(s *ruleset.Set) ([]ruleset.Elem, error) {
	var all []ruleset.Elem
	err := c.dump(unix.NFT_MSG_GETSETELEM, s.Family, func(a *nfnl.Attrs) {
		a.String(unix.NFTA_SET_ELEM_LIST_TABLE, firewall.TableName)
		a.String(unix.NFTA_SET_ELEM_LIST_SET, s.Name)
	}, func(attrs []byte) error {
		return ruleset.DecodeElems(s, attrs, func(e ruleset.Elem) { all = append(all, e) })
	})
	if errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	return all, err
}
