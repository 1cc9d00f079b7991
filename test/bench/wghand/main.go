// Command wghand makes a WireGuard device of wireguard-go by hand, as flannel would have it:
//
//	wghand NAME <SETTINGS
//
// SETTINGS are those of the cross-platform userspace interface, without its first line. It prints
// a line when the device is up, and ends with its process.
package main

import (
	"fmt"
	"io"
	"os"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun"
)

// flannelMTU is that of flannel's WireGuard device over a link of 1500 bytes.
const flannelMTU = 1500 - 80

func main() {
	if err := run(os.Args[1], os.Stdin); err != nil {
		fmt.Fprintln(os.Stderr, "wghand:", err)
		os.Exit(1)
	}
	select {}
}

func run(name string, settings io.Reader) error {
	t, err := tun.CreateTUN(name, flannelMTU)
	if err != nil {
		return err
	}
	d := device.NewDevice(t, conn.NewDefaultBind(), device.NewLogger(device.LogLevelError, name+": "))
	if err := d.IpcSetOperation(settings); err != nil {
		return err
	}
	if err := d.Up(); err != nil {
		return err
	}
	_, err = fmt.Println("up")
	return err
}
