package netlink

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestRetry(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		fails int
		with  error
		calls int
		want  error
	}{
		{0, nil, 1, nil},
		{3, errInterrupted, 4, nil},
		{3, fmt.Errorf("read: %w", unix.EINTR), 4, nil},
		{9999, errInterrupted, dumpTries, errInterrupted},
		{1, unix.ENODEV, 1, ErrNotFound},
	} {
		calls := 0
		_, err := retry(func() (int, error) {
			if calls++; calls <= tt.fails {
				return 0, tt.with
			}
			return 1, nil
		})
		if calls != tt.calls || !errors.Is(err, tt.want) || (err == nil) != (tt.want == nil) {
			t.Errorf("%d times %v: %d calls, %v, want %d, %v", tt.fails, tt.with, calls, err, tt.calls, tt.want)
		}
	}
}

func TestUndo(t *testing.T) {
	t.Parallel()
	var u Undo
	var got []int
	bad := errors.New("bad")
	for i, err := range []error{nil, ErrNotFound, bad, nil} {
		u.Push(func() error { got = append(got, i); return err })
	}
	if err := u.Run(); !errors.Is(err, bad) || errors.Is(err, ErrNotFound) || fmt.Sprint(got) != "[3 2 1 0]" {
		t.Errorf("got %v, %v", got, err)
	}
}

// TestAwait needs an event to see the change, as on kernels before 6.9.
func TestAwait(t *testing.T) {
	t.Parallel()
	h := newConn(t)
	looks := 0
	err := Await(t.Context(), nil, func() (string, error) {
		if looks++; looks == 2 { // the socket is open: make an event
			if err := h.SetLink(LoIndex, 0, unix.IFF_UP); err != nil {
				return "", err
			}
		}
		if looks < 3 {
			return "lo to go down", nil
		}
		return "", nil
	})
	if err != nil || looks != 3 {
		t.Errorf("got %v after %d looks, want 3", err, looks)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	err = Await(ctx, nil, func() (string, error) { return "nothing", nil })
	if !errors.Is(err, context.DeadlineExceeded) || err.Error() != "wait for nothing: context deadline exceeded" {
		t.Errorf("got %v", err)
	}
}

// TestErrorText checks that the kernel's own words arrive.
func TestErrorText(t *testing.T) {
	t.Parallel()
	m := syscall.NetlinkMessage{Header: syscall.NlMsghdr{Type: unix.NLMSG_ERROR, Flags: unix.NLM_F_CAPPED | unix.NLM_F_ACK_TLVS}}
	m.Data = binary.NativeEndian.AppendUint32(nil, ^uint32(unix.ENODEV)+1)
	m.Data = append(m.Data, make([]byte, unix.SizeofNlMsghdr)...)
	m.Data = append(m.Data, AttrString(nlmsgerrAttrMsg, "no such thing").Serialize()...)
	if err := answerError(m); !errors.Is(err, unix.ENODEV) || err.Error() != "no such device: no such thing" {
		t.Errorf("got %v", err)
	}
	m.Header.Type = unix.NLMSG_DONE // no request header here
	m.Data = append(m.Data[:4:4], AttrString(nlmsgerrAttrMsg, "no such table").Serialize()...)
	if err := answerError(m); err == nil || err.Error() != "no such device: no such table" {
		t.Errorf("got %v", err)
	}
}

// FuzzParse feeds what the kernel would never send.
func FuzzParse(f *testing.F) {
	h := newConn(f)
	for _, d := range []struct{ get, reply, size int }{
		{unix.RTM_GETLINK, unix.RTM_NEWLINK, unix.SizeofIfInfomsg}, {unix.RTM_GETADDR, unix.RTM_NEWADDR, unix.SizeofIfAddrmsg},
		{unix.RTM_GETROUTE, unix.RTM_NEWROUTE, unix.SizeofRtMsg},
	} {
		req := Request(d.get, unix.NLM_F_DUMP)
		req.AddRawData(make([]byte, d.size))
		msgs, err := h.Execute(req, uint16(d.reply))
		if err != nil {
			f.Fatal(err)
		}
		for _, m := range msgs {
			f.Add(m)
		}
	}
	f.Fuzz(func(_ *testing.T, b []byte) {
		_, _ = ParseDevice(b)
		_, _, _ = ParseAddr(b)
		_, _, _ = ParseRoute(b)
		for _, typ := range []uint16{unix.NLMSG_DONE, unix.NLMSG_ERROR} {
			_ = answerError(syscall.NetlinkMessage{Header: syscall.NlMsghdr{Type: typ, Flags: 0xffff}, Data: b})
		}
	})
}
