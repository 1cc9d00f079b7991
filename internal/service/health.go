package service

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/libnet-cni/libnet/internal/firewall"
)

// Health is how the containers of a service are checked: each host connects to its own. The zero
// Health is no check.
type Health struct {
	// Port of TCP, of the container.
	Port uint16
	// Every is how long it is from one check of a container to the next.
	Every time.Duration
}

// Checks that are too often, or too rare, are refused.
const (
	defaultEvery = 5 * time.Second
	leastEvery   = time.Second
	mostEvery    = time.Hour
)

const wantHealth = "want tcp, tcp:PORT, either with ,interval=5s (1s to 1h), or none"

// Is says that there is a check.
func (h Health) Is() bool { return h.Port != 0 }

// String is "tcp:8080,interval=5s"; without a check "none".
func (h Health) String() string {
	if !h.Is() {
		return "none"
	}
	return fmt.Sprintf("tcp:%d,interval=%s", h.Port, h.Every)
}

// SetHealth reads "tcp", "tcp:8080" and "tcp:8080,interval=10s"; "none" and the empty text are no check.
// Without a port it is the one of containers to which the first port of TCP leads. The error is ErrInvalid.
func (s *Service) SetHealth(text string) error {
	s.Health = Health{}
	if text == "" || text == "none" {
		return nil
	}
	bad := invalid("check", strconv.Quote(text), wantHealth)
	what, rest, more := strings.Cut(text, ",")
	protocol, port, given := strings.Cut(what, ":")
	if protocol != "tcp" {
		return bad
	}
	h := Health{Every: defaultEvery}
	if given {
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil || n == 0 {
			return bad
		}
		h.Port = uint16(n)
	} else {
		i := slices.IndexFunc(s.Ports, func(p Port) bool { return p.Protocol == firewall.TCP })
		if i < 0 {
			return invalid("check", strconv.Quote(text), "the service has no port of TCP: say which port of the containers, as tcp:8080")
		}
		h.Port = s.Ports[i].Target
	}
	if more {
		every, ok := strings.CutPrefix(rest, "interval=")
		d, err := time.ParseDuration(every)
		if !ok || err != nil {
			return bad
		}
		h.Every = d
	}
	if h.Every < leastEvery || h.Every > mostEvery {
		return bad
	}
	s.Health = h
	return nil
}

// checkHealth refuses a check that others have written, out of the bounds of SetHealth.
func (s Service) checkHealth() error {
	if s.Health.Is() && (s.Health.Every < leastEvery || s.Health.Every > mostEvery) {
		return invalid("check", s.Health, wantHealth)
	}
	return nil
}

// Serving returns those of some backends of the service that get connections, as far as checks
// say: those that are well. If none is among all that have a weight, on all hosts, the check
// counts for nothing: it tells of itself then rather than of the containers.
func (s Service) Serving(some, all []Backend) []Backend {
	if !s.Health.Is() || s.AllFail(all) {
		return some
	}
	var well []Backend
	for _, b := range some {
		if b.Well {
			well = append(well, b)
		}
	}
	return well
}

// AllFail says that no backend which has a weight is well, and there are some.
func (s Service) AllFail(all []Backend) bool {
	some := false
	for _, b := range all {
		weighs := s.Weight(b.ContainerID) > 0
		if some = some || weighs; weighs && b.Well {
			return false
		}
	}
	return s.Health.Is() && some
}
