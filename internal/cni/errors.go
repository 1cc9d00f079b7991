package cni

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"syscall"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/libnet-cni/libnet/internal/firewall"
	"github.com/libnet-cni/libnet/internal/host"
	"github.com/libnet-cni/libnet/internal/jsonr"
	"github.com/libnet-cni/libnet/internal/link"
	"github.com/libnet-cni/libnet/internal/model"
	"github.com/libnet-cni/libnet/internal/netlink"
	"github.com/libnet-cni/libnet/internal/publish"
	"github.com/libnet-cni/libnet/internal/tunnel"
	"github.com/libnet-cni/libnet/internal/wireguard"
	"github.com/libnet-cni/libnet/pkg/ipamstore"
)

// Codes of our own; the spec leaves those from 100 to plugins.
const (
	CodeExhausted  uint = 100 // no address, or no free port, left
	CodeTaken      uint = 101 // an address, an interface name or a port of the host is held by another
	CodeBridgeFull uint = 102 // the bridge has no free port
	CodeDifferent  uint = 103 // CHECK found a difference
)

// errorCode is the code of an error and of those that wrap it.
type errorCode struct {
	err  error
	code uint
}

// sentinelCodes is the one table from errors to codes, first match wins. It is made when an
// error is reported: most calls end without one.
func sentinelCodes() []errorCode {
	return []errorCode{
		{model.ErrBadNetns, types.ErrInvalidNetNS},
		{model.ErrOwnNamespace, types.ErrInvalidNetNS},
		{model.ErrDifferent, CodeDifferent},
		{model.ErrInvalidName, types.ErrInvalidEnvironmentVariables},
		{ipamstore.ErrLocked, types.ErrTryAgainLater},
		{model.ErrNotReady, types.ErrTryAgainLater},
		{ipamstore.ErrExhausted, CodeExhausted},
		{ipamstore.ErrTaken, CodeTaken},
		{ipamstore.ErrNotFound, CodeDifferent},
		{ipamstore.ErrMismatch, CodeDifferent},
		{ipamstore.ErrInvalid, types.ErrInvalidNetworkConfig},
		{ipamstore.ErrIO, types.ErrIOFailure},
		{publish.ErrNoFreePort, CodeExhausted},
		{netlink.ErrExists, CodeTaken},
		{host.ErrReadOnly, types.ErrIOFailure},
		{netlink.ErrBridgeFull, CodeBridgeFull},
		{link.ErrNotBridge, types.ErrInvalidNetworkConfig},
		{link.ErrAddressConflict, types.ErrInvalidNetworkConfig},
		{tunnel.ErrRouteConflict, types.ErrInvalidNetworkConfig},
		{wireguard.ErrKeyFile, types.ErrInvalidNetworkConfig},
		{netlink.ErrUnsupported, types.ErrUnsupportedField},
		{firewall.ErrUnsupported, types.ErrUnsupportedField},
		// The host is short of something, or too slow: that passes.
		{context.DeadlineExceeded, types.ErrTryAgainLater},
		{syscall.EAGAIN, types.ErrTryAgainLater}, // the timeout of a netlink socket
		{syscall.EMFILE, types.ErrTryAgainLater},
		{syscall.ENFILE, types.ErrTryAgainLater},
		{syscall.ENOBUFS, types.ErrTryAgainLater},
		{syscall.ENOMEM, types.ErrTryAgainLater},
	}
}

func codef(code uint, format string, args ...any) error {
	return types.NewError(code, fmt.Sprintf(format, args...), "")
}

// codeOf gives an error its code. An error of STATUS is 50 (plugin not available), unless
// it is 51 already or the call itself is wrong.
func codeOf(err error, command string) *types.Error {
	code, details := ownCode(err)
	switch {
	case command == "STATUS" && errors.Is(err, model.ErrLimited):
		code = types.ErrLimitedConnectivity
	case command == "STATUS" && !slices.Contains(statusCodes, code):
		code = types.ErrPluginNotAvailable
	case code == 0:
		code = sentinelCode(err)
	}
	return types.NewError(code, message(err), details)
}

// message is an error's, in which port mappings have the key of the
// configuration: libnet counts those that it was given.
func message(err error) string {
	var conf *model.ConfigError
	if !errors.As(err, &conf) || !strings.HasPrefix(conf.Key, "portMappings[") {
		return err.Error()
	}
	said := conf.Error()
	return strings.Replace(err.Error(), said, "runtimeConfig."+said, 1)
}

// statusCodes are those that STATUS passes on.
var statusCodes = []uint{
	types.ErrLimitedConnectivity, types.ErrIncompatibleCNIVersion, types.ErrInvalidEnvironmentVariables,
	types.ErrDecodingFailure, types.ErrInvalidNetworkConfig,
}

// ownCode returns the code and details an error brings along; 0 if it has none.
func ownCode(err error) (code uint, details string) {
	var (
		coded    *types.Error
		conf     *model.ConfigError
		ipamConf *ipamstore.ConfigError
		value    *jsonr.Error
	)
	switch {
	case errors.As(err, &coded):
		return coded.Code, coded.Details
	case errors.As(err, &conf), errors.As(err, &ipamConf), errors.As(err, &value):
		return types.ErrInvalidNetworkConfig, ""
	}
	return 0, ""
}

func sentinelCode(err error) uint {
	for _, s := range sentinelCodes() {
		if errors.Is(err, s.err) {
			return s.code
		}
	}
	var (
		held *publish.PortHeldError
		addr *publish.AddressHeldError
		path *fs.PathError
	)
	switch {
	case errors.As(err, &held), errors.As(err, &addr):
		return CodeTaken
	case errors.As(err, &path):
		return types.ErrIOFailure
	}
	return types.ErrInternal
}

func badKey(key, value, want string) error {
	return codef(types.ErrInvalidNetworkConfig, "%s: %s: %s", key, value, want)
}
