package main

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/libnet-cni/libnet/internal/agent"
)

func wireguardCommand(s *settings) *cobra.Command {
	return &cobra.Command{
		Use:   "wireguard",
		Short: "Run wireguard-go for encrypted networks, on a host whose kernel has no WireGuard",
		Long: "Run wireguard-go for each network of overlay-ln in --conf-dir that has \"encryption\", and do nothing where the\n" +
			"kernel has WireGuard. Plugins tell it keys and peers. It needs no etcd. While it does not run, nothing of these\n" +
			"networks leaves this host or comes in.",
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			signal.Ignore(syscall.SIGPIPE) // it outlives an ln-agent that started it and read its log
			log, err := s.logger(cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			unlock, err := lock(agent.UserspaceLockPath(s.stateDir))
			if err != nil {
				return err
			}
			defer unlock()
			u := agent.Userspace{ConfDir: s.confDir, StateDir: s.stateDir, Log: log}
			return u.Run(cmd.Context())
		},
	}
}

// runWireGuard returns a function that runs "ln-agent wireguard" beside this process until that
// ends, which outlives this one: its devices are those of running containers. While another
// process does so already, it waits for the end of that.
func (s *settings) runWireGuard(stderr io.Writer) func(context.Context) error {
	return func(ctx context.Context) error {
		if err := awaitLock(ctx, agent.UserspaceLockPath(s.stateDir)); err != nil {
			return err
		}
		self, err := os.Executable()
		if err != nil {
			return err
		}
		cmd := exec.Command(self, "wireguard", "--conf-dir", s.confDir, "--state-dir", s.stateDir, "--log-level", s.logLevel, "--log-format", s.logFormat)
		cmd.Stdout, cmd.Stderr = stderr, stderr
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // what ends this process group does not end it
		return cmd.Run()
	}
}

// awaitLock returns when no process holds the lock of a file.
func awaitLock(ctx context.Context, path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	free := make(chan error, 1)
	go func() {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX)
		for errors.Is(err, unix.EINTR) {
			err = unix.Flock(int(f.Fd()), unix.LOCK_EX)
		}
		free <- errors.Join(err, f.Close())
	}()
	select {
	case err := <-free:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}
