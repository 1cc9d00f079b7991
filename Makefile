# libnet: `make` says what there is to do.
SHELL      := /bin/bash
GO         ?= go
VERSION    ?= $(shell scripts/version)
prefix     ?= /usr/local
cnibindir  ?= $(or $(PREFIX),/opt/cni/bin)
sbindir    ?= $(or $(SBINDIR),$(prefix)/sbin)
CACHE      := $(CURDIR)/.cache
TOOLS      := $(CACHE)/bin
LINT_VERSION := v2.15.0
LINT       := $(TOOLS)/golangci-lint-$(LINT_VERSION)
FUZZTIME   ?= 20s
# What has goroutines is tested under the race detector, which needs cgo.
RACE       := ./pkg/... ./cmd/ln-agent $(addprefix ./internal/,address agent cni driver engine firewall/conntrack firewall/nft flock host kernel life link netlink netns nfnl operator overlay plain registry/etcd registry/kubernetes state tunnel)
STORM      ?= 5m

export GOEXPERIMENT := $(shell GO="$(GO)" scripts/goexperiment)

# Static, stripped, the same bytes from the same source. Functions start at multiples of 8 bytes,
# not 32: bridge-ln is 80 KB smaller, and no slower. What runs once per call has no function inlined:
# 0.48 MB smaller, and no slower in 300 rounds of ADD, CHECK and DEL; loops over many hosts keep
# theirs. In the standard library and other modules this saves 90 KB, for 2.7 % more instructions of
# an ADD. Package errors keeps inlining: errors at the package level are data by its New, inlined.
ONCE := $(addprefix ./internal/,address aside balancer bpf cni engine fastpath guard host kernel link model naming nodefile operator plan plugin policy pooldir publish responder shortcut state $(addprefix firewall/,balance conntrack either foreign iptables nft ruleset tool)) ./pkg/ipamstore/...
ONCE += context encoding/base64 encoding/json fmt internal/bisect internal/fmtsort internal/poll internal/syscall/unix io/fs log net net/netip os os/exec path/filepath strconv syscall time unique
ONCE += github.com/containernetworking/cni/... github.com/vishvananda/netlink/nl golang.org/x/sys/unix
GOFLAGS_BUILD := -trimpath $(patsubst %,-gcflags=%=-l,$(ONCE)) -ldflags "-s -w -funcalign=8 -X main.version=$(VERSION)"
export CGO_ENABLED := 0
export GOFLAGS := $(GOFLAGS) -buildvcs=false
export PATH := $(CURDIR)/bin:$(TOOLS):$(PATH)

.PHONY: help build test test-rootless soak e2e e2e-kubernetes e2e-wireguard demo demo-names demo-services demo-overlay lint api keys bpf fuzz bench bench-gate image install uninstall tree dist e2e-deb clean tools
help: ## show this
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-13s %s\n", $$1, $$2}'

# A release builds with the same flags, for each processor into a directory of its own.
OUT := bin
build: ## build the plugins, lnctl and ln-agent into bin/
	@mkdir -p $(OUT)
	$(GO) build $(GOFLAGS_BUILD) -o $(OUT)/ ./plugins/... ./cmd/...

# The tag is a version, as a manifest names it: IMAGE_VERSION=v1.2.3.
IMAGE_VERSION ?= $(VERSION)
image: ## write the image for amd64 and arm64, with its SBOM, as an OCI layout into .cache/image/oci (no Docker needed)
	@rm -rf $(CACHE)/image/programs && mkdir -p $(CACHE)/image/programs/amd64 $(CACHE)/image/programs/arm64
	for arch in amd64 arm64; do GOARCH=$$arch $(GO) build $(GOFLAGS_BUILD) -o $(CACHE)/image/programs/$$arch/ ./plugins/... ./cmd/... || exit; done
	$(GO) run -C scripts/image . -from $(CACHE)/image/programs -to $(CACHE)/image/oci -version $(IMAGE_VERSION)

tools: ## build what the tests drive: cnitool, the reference plugins, etcd, the OpenTelemetry collector
	@mkdir -p $(TOOLS)
	$(GO) build -C test/tools -trimpath -ldflags "-s -w" -o $(TOOLS)/ tool
	$(GO) build -C test/etcd -trimpath -ldflags "-s -w" -o $(TOOLS)/ . tool
	$(GO) build -C test/otelcol -trimpath -ldflags "-s -w" -o $(TOOLS)/ .

test: build tools ## run the tests (as root: they make network namespaces)
	@scripts/test-deps
	$(GO) vet ./...
	$(GO) vet -tags manual ./cmd/lnctl ./cmd/ln-agent # what writes the manual pages
	$(GO) test -C packaging ./...
	BIN=$(CURDIR)/bin TOOLS=$(TOOLS) $(GO) test -timeout 40m $$($(GO) list ./... | grep -vxF "$$($(GO) list $(RACE))")
	BIN=$(CURDIR)/bin TOOLS=$(TOOLS) CGO_ENABLED=1 $(GO) test -race -timeout 40m $(RACE)

# LIBNET_ROOTLESS has the tests skip that lntest.NeedsRoot names; under root none of them do.
test-rootless: build tools ## run the tests as an ordinary user, in a user namespace
	$(GO) vet ./...
	unshare -Urnm env LIBNET_ROOTLESS=1 BIN=$(CURDIR)/bin TOOLS=$(TOOLS) $(GO) test -timeout 50m ./...

soak: build tools ## storm for STORM (default 5m), every world of the matrix, kill at every system call, races and edited configurations at length
	BIN=$(CURDIR)/bin TOOLS=$(TOOLS) LIBNET_MATRIX=full LIBNET_CHURN=full $(GO) test -count=1 -v -timeout 30m -run 'TestMatrix|TestChurn' ./test/integration
	BIN=$(CURDIR)/bin TOOLS=$(TOOLS) LIBNET_CONNECT=1000 $(GO) test -count=1 -v -timeout 30m -run TestConnectLosesNothing ./test/integration
	BIN=$(CURDIR)/bin TOOLS=$(TOOLS) LIBNET_STORM=$(STORM) $(GO) test -count=1 -v -timeout 30m ./test/storm
	BIN=$(CURDIR)/bin TOOLS=$(TOOLS) LIBNET_KILL=full $(GO) test -count=1 -v -timeout 60m ./test/kill
	LIBNET_ROUNDS=50 CGO_ENABLED=1 $(GO) test -race -count=1 -v -timeout 30m -run Shared ./internal/engine
	BIN=$(CURDIR)/bin TOOLS=$(TOOLS) LIBNET_EDITED=full $(GO) test -count=1 -v -timeout 30m -run TestEditedAfterAdd ./test/integration
	@rm -rf $(CACHE)/race && mkdir -p $(CACHE)/race && cp bin/* $(CACHE)/race/
	CGO_ENABLED=1 $(GO) build -race -o $(CACHE)/race/ ./cmd/ln-agent
	BIN=$(CACHE)/race TOOLS=$(TOOLS) GORACE=halt_on_error=1 $(GO) test -count=1 -timeout 30m -run TestAgent -skip TestAgentMany ./test/integration # that one measures memory

demo: build ## connect two containers, publish a port, leave nothing
	$(GO) run ./scripts/demo -bin $(CURDIR)/bin -conf $(CURDIR)/conf/examples

demo-names: build ## have containers find each other by name, and kill the agent
	$(GO) run ./scripts/demo -names -bin $(CURDIR)/bin -conf $(CURDIR)/conf/examples

demo-services: build tools ## replace the containers of a service under load, on one host and on three, and count what fails
	$(GO) run ./scripts/demo -services -bin $(CURDIR)/bin -conf $(CURDIR)/conf/examples
	$(GO) run ./scripts/demo -mesh -bin $(CURDIR)/bin -tools $(TOOLS) -conf $(CURDIR)/conf/examples

demo-overlay: build tools ## connect containers of three hosts by etcd, and take hosts and etcd away
	$(GO) run ./scripts/demo -overlay -bin $(CURDIR)/bin -tools $(TOOLS) -conf $(CURDIR)/conf/examples

e2e: build tools ## run real containerd over the plugins (installs Debian packages)
	@scripts/test-deps
	@test/e2e/deps
	BIN=$(CURDIR)/bin TOOLS=$(TOOLS) $(GO) test -C test/e2e -v -count=1 -timeout 10m .

e2e-kubernetes: build tools ## run the manifest on a real two-node Kubernetes, and its conformance specs (builds one: 25 minutes the first time)
	@test/kubernetes/deps $(CACHE)/kubernetes $(TOOLS)
	@rm -f $(CURDIR)/bin/compatibility $(CURDIR)/bin/runtimes
	BIN=$(CURDIR)/bin TOOLS=$(TOOLS) KUBERNETES=$(CACHE)/kubernetes RUNTIMES=$(CURDIR)/bin/runtimes $(GO) test -C test/kubernetes -v -count=1 -timeout 30m .
	BIN=$(CURDIR)/bin KUBERNETES=$(CACHE)/kubernetes RESULTS=$(CURDIR)/bin/compatibility VARIANT=dual-stack test/kubernetes/cluster none
	BIN=$(CURDIR)/bin KUBERNETES=$(CACHE)/kubernetes RESULTS=$(CURDIR)/bin/compatibility VARIANT=host-gw PROXY_MODE=iptables test/kubernetes/cluster none
	BIN=$(CURDIR)/bin KUBERNETES=$(CACHE)/kubernetes RESULTS=$(CURDIR)/bin/compatibility VARIANT=network-policy test/kubernetes/cluster 'Netpol (\[LinuxOnly\] )?NetworkPolicy between'
	BIN=$(CURDIR)/bin KUBERNETES=$(CACHE)/kubernetes RESULTS=$(CURDIR)/bin/compatibility test/kubernetes/cluster
	@test/kubernetes/compatibility $(CACHE)/kubernetes $(CURDIR)/bin/compatibility $(CURDIR)/bin/runtimes >docs/compatibility.md

# Without what needs a quick etcd, which an emulated machine has not, or nft, which its root has not.
e2e-wireguard: build tools ## run encrypted networks on a kernel with WireGuard, in qemu (installs Debian packages)
	@test/wireguard/deps $(CACHE)/wireguard
	$(GO) test -c -o $(CACHE)/wireguard/ ./test/integration ./test/kill
	test/wireguard/run $(CACHE)/wireguard $(CURDIR)/bin $(TOOLS) "./integration.test -test.v -test.run '^TestWireGuard' -test.skip 'Rotation$$|Many$$|EtcdAway$$|StuckPeer$$' -test.parallel 1 -test.timeout 20m && \
		./kill.test -test.v -test.run '^TestKill$$/overlay-ln_encrypted' -test.parallel 1 -test.timeout 20m"

lint: $(LINT) ## run the linters, and compare the exported API with api/*.txt, the keys with docs/configuration.md
	$(GO) run ./scripts/api -check
	$(GO) run ./scripts/keys -check
	$(GO) run ./scripts/bpf -check
	$(LINT) run --allow-parallel-runners ./...

api: ## write api/*.txt anew, after a meant change of the exported API
	$(GO) run ./scripts/api

keys: ## write docs/configuration.md anew, after a change of a key
	$(GO) run ./scripts/keys

bpf: ## build the BPF program anew, after a change of its source (installs Debian packages)
	@command -v clang-16 >/dev/null || DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends clang-16 libbpf-dev linux-libc-dev gcc
	$(GO) run ./scripts/bpf

$(LINT):
	@mkdir -p $(TOOLS)
	GOBIN=$(TOOLS) $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(LINT_VERSION)
	mv $(TOOLS)/golangci-lint $@

fuzz: ## run every fuzz test for FUZZTIME (default 20s)
	@scripts/fuzz $(FUZZTIME)

# The tools to install the shell lists: make would do it before the recipe has built them.
# BENCH names parts (attach gc storm ports addresses process packets overlay agent wireguard names services policy library) and N
# how often each call is timed. All of them together write docs/performance.md.
bench: build tools ## time ours beside the reference plugins, in one run
	@scripts/test-deps
	$(GO) test -C test/bench ./...
	$(GO) build -C test/bench -trimpath -ldflags "-s -w" -o $(TOOLS)/bench/ ./...
	$(GO) build -C test/libnetwork -trimpath -ldflags "-s -w" -o $(TOOLS)/bench/libnetwork .
	$(GO) test -c -o $(TOOLS)/bench/integration.test ./test/integration
	$(GO) test -c -o $(TOOLS)/bench/balance.test ./internal/firewall/balance
	$(GO) test -c -o $(TOOLS)/bench/enforce.test ./internal/enforce
	@rm -rf $(CACHE)/installed && mkdir -p $(CACHE)/installed/tools # as installed: what the linker wrote starts slower than a copy
	@cp -r bin $(CACHE)/installed/bin
	@for f in $(TOOLS)/*; do case $$f in $(TOOLS)/golangci*) ;; *) cp -r $$f $(CACHE)/installed/tools/ || exit;; esac; done
	BIN=$(CACHE)/installed/bin TOOLS=$(CACHE)/installed/tools VERSION=$(VERSION) KUBE_PROXY=$(wildcard $(CACHE)/kubernetes/kube-proxy) \
		REFERENCE=$$($(GO) list -C test/tools -m -f '{{.Version}}' github.com/containernetworking/plugins) \
		$(CACHE)/installed/tools/bench/bench -n $(or $(N),30) -docs $(CURDIR)/docs $(BENCH)

# SET=-set writes the figures anew.
bench-gate: build ## fail if an ADD takes 3 % more instructions or system calls than test/bench/gate/add.txt says (installs Debian packages)
	@test/bench/gate/deps
	@mkdir -p $(TOOLS)/bench
	$(GO) build -C test/bench -trimpath -o $(TOOLS)/bench/gate ./gate
	BIN=$(CURDIR)/bin $(TOOLS)/bench/gate $(SET) test/bench/gate/add.txt

# What is installed, as a tarball of a release has it: manual pages and completions are made
# of the commands.
tree: build
	@rm -rf $(CACHE)/tree && mkdir -p $(CACHE)/tree/man $(CACHE)/tree/completion
	@cp -r bin README.md CHANGELOG.md LICENSE conf/examples conf/systemd $(CACHE)/tree/
	@SOURCE_DATE_EPOCH=$$(stat -c %Y VERSION) $(GO) run -tags manual -ldflags "-X main.version=$(VERSION)" ./cmd/lnctl $(CACHE)/tree/man
	@SOURCE_DATE_EPOCH=$$(stat -c %Y VERSION) $(GO) run -tags manual -ldflags "-X main.version=$(VERSION)" ./cmd/ln-agent $(CACHE)/tree/man
	@for shell in bash zsh fish; do bin/lnctl completion $$shell > $(CACHE)/tree/completion/$$shell || exit; done

install: tree ## install below prefix (/usr/local), the plugins in cnibindir (/opt/cni/bin); DESTDIR for packages
	SOURCE=$(CACHE)/tree DESTDIR=$(DESTDIR) prefix=$(prefix) cnibindir=$(cnibindir) sbindir=$(sbindir) packaging/install

uninstall: tree ## take away what install installed
	SOURCE=$(CACHE)/tree DESTDIR=$(DESTDIR) prefix=$(prefix) cnibindir=$(cnibindir) sbindir=$(sbindir) packaging/install --remove

dist: ## build what a release has into dist/: tarballs, .deb, SBOM, NOTICE, SHA256SUMS
	GO=$(GO) VERSION=$(VERSION) packaging/build $(CURDIR)/dist $(DISTARCH)

e2e-deb: ## install, upgrade and remove the .deb in a Debian of its own (installs Debian packages)
	@command -v debootstrap >/dev/null || { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends debootstrap; }
	@mkdir -p $(TOOLS)
	$(GO) build -C test/tools -trimpath -ldflags "-s -w" -o $(TOOLS)/ github.com/containernetworking/cni/cnitool
	$(GO) test -C packaging ./...
	GO=$(GO) TOOLS=$(TOOLS) packaging/e2e/run

clean: ## remove what was built
	rm -rf bin dist .cache
