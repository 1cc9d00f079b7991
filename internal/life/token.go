package life

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"
)

// Token is the form in which a lease keeps what is known of its holder:
// "dev:inode:cookie" of the network namespace, the mount namespace and the
// runtime. Empty: nothing is.
func (h Holder) Token() string {
	if h.NetnsID == (NetnsID{}) && h.Runtime == "" {
		return ""
	}
	runtime := h.Runtime
	if strings.ContainsFunc(runtime, unicode.IsControl) || len(runtime) > 1024 {
		runtime = "" // a lease cannot hold it
	}
	return h.NetnsID.String() + ":" + h.MountNS + ":" + runtime
}

// ParseToken reads what Holder.Token wrote, or only NetnsID.String: zero for anything
// else.
func ParseToken(s string) Holder {
	f := strings.SplitN(s, ":", 5)
	if len(f) != 3 && len(f) != 5 {
		return Holder{} // none, or not ours: unknown
	}
	var n [3]uint64
	for i := range n {
		var err error
		if n[i], err = strconv.ParseUint(f[i], 10, 64); err != nil {
			return Holder{}
		}
	}
	h := Holder{NetnsID: NetnsID{n[0], n[1], n[2]}}
	if len(f) == 5 {
		h.MountNS, h.Runtime = f[3], f[4]
	}
	return h
}

// String is "dev:inode:cookie".
func (n NetnsID) String() string { return fmt.Sprintf("%d:%d:%d", n.Dev, n.Ino, n.Cookie) }
