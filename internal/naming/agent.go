package naming

import (
	"errors"

	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/nfnl"
)

// agentTable is the table of internal/capture. It is there while ln-agent takes queries, and
// goes with its socket.
const agentTable = "libnet-names"

// AgentAnswers says whether ln-agent takes queries in this network namespace.
func AgentAnswers() (is bool, err error) {
	c, err := nfnl.Open()
	if errors.Is(err, unix.EPROTONOSUPPORT) {
		return false, nil // no nfnetlink, so no table
	}
	if err != nil {
		return false, err
	}
	defer func() { _ = c.Close() }()
	var b nfnl.Buffer
	b.Add(nfnl.Message{
		Subsystem: unix.NFNL_SUBSYS_NFTABLES, Type: unix.NFT_MSG_GETTABLE, Family: unix.NFPROTO_INET,
		Put: func(a *nfnl.Attrs) { a.String(unix.NFTA_TABLE_NAME, agentTable) },
	})
	if err := c.Send(&b); err != nil {
		return false, err
	}
	err = c.Receive(func(_ nfnl.Answer, isErr bool, errno unix.Errno) (bool, error) {
		is = !isErr
		if isErr && errno != unix.ENOENT && errno != unix.EINVAL { // no table, no nf_tables
			return true, errno
		}
		return true, nil
	})
	return is, err
}
