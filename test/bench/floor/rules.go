package main

import (
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"golang.org/x/sys/unix"
)

// element is one of a set of the table that bench makes.
type element struct {
	set   *nftables.Set
	value nftables.SetElement
}

// elements are what one attachment with a masqueraded address and a published
// port needs, as many and as large as ours.
func elements(number int) []element {
	table := &nftables.Table{Name: "floor", Family: nftables.TableFamilyINet}
	addr := address(number)
	home := append(append([]byte{}, addr...), padded("floor0", 16)...)
	port := append(padded(string([]byte{unix.IPPROTO_TCP}), 4), padded(string(binaryutil.BigEndian.PutUint16(uint16(number))), 4)...)
	target := append(append([]byte{}, addr...), padded(string(binaryutil.BigEndian.PutUint16(80)), 4)...)
	comment := fmt.Sprintf("floor:bench/%d/eth0", number)
	return []element{
		{&nftables.Set{Table: table, Name: "masq"}, nftables.SetElement{Key: addr, Comment: comment}},
		{&nftables.Set{Table: table, Name: "home"}, nftables.SetElement{Key: home, Comment: comment}},
		{&nftables.Set{Table: table, Name: "hairpin"}, nftables.SetElement{Key: home, Comment: comment}},
		{&nftables.Set{Table: table, Name: "port", IsMap: true}, nftables.SetElement{Key: port, Val: target, Comment: comment}},
	}
}

// padded is s in the size of a register or several.
func padded(s string, size int) []byte { return append([]byte(s), make([]byte, size-len(s))...) }

func putElements(number int) error {
	return transaction(number, (*nftables.Conn).SetAddElements)
}

func deleteElements(number int) error {
	return transaction(number, (*nftables.Conn).SetDeleteElements)
}

func transaction(number int, verb func(*nftables.Conn, *nftables.Set, []nftables.SetElement) error) error {
	conn, err := nftables.New(nftables.AsLasting()) // closed by the end of the process
	if err != nil {
		return err
	}
	for _, e := range elements(number) {
		if err := verb(conn, e.set, []nftables.SetElement{e.value}); err != nil {
			return err
		}
	}
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("nftables: %w", err)
	}
	return nil
}
