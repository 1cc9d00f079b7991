package lntest

import (
	"errors"
	"net"
	"os"
	"time"
)

// Exchange sends a question and returns the answer that comes within patience.
// A datagram may be lost on a busy machine, so it is sent again every second.
func Exchange(c net.Conn, question string, patience time.Duration) (string, error) {
	again := patience
	if _, datagrams := c.(*net.UDPConn); datagrams {
		again = min(again, time.Second)
	}
	buf := make([]byte, 256)
	for end := time.Now().Add(patience); ; {
		if _, err := c.Write([]byte(question)); err != nil {
			return "", err
		}
		if err := c.SetReadDeadline(time.Now().Add(again)); err != nil {
			return "", err
		}
		n, err := c.Read(buf)
		if err == nil || !errors.Is(err, os.ErrDeadlineExceeded) || !time.Now().Before(end) {
			return string(buf[:n]), err
		}
	}
}
