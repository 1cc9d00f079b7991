package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// cold times ADD after the plugins were thrown out of the page cache.
func cold(r *report, chains []*chain, n int) error {
	t := &table{columns: []string{"ms", "ADD p50", "max", "warm, p50"}}
	for _, c := range chains {
		c.forget()
		var took durations
		for range max(3, n/8) {
			if err := evict(); err != nil {
				return err
			}
			if err := c.cycle(); err != nil {
				return err
			}
			took = append(took, c.add[len(c.add)-1])
			if err := c.cycle(); err != nil {
				return err
			}
			c.add = append(c.add[:len(c.add)-2], c.add[len(c.add)-1])
		}
		t.row(c.name, took.ms(50), took.ms(100), c.add.ms(50))
	}
	t.print(r, "cold start: programs and libraries thrown out of the page cache before each ADD")
	return nil
}

// coldFiles are what the chains start or load.
var coldFiles = []string{
	"/usr/sbin/xtables-*", "/usr/sbin/nft", "/usr/lib/*/libnftables.so*", "/usr/lib/*/libnftnl.so*",
	"/usr/lib/*/libxtables.so*", "/usr/lib/*/libmnl.so*", "/usr/lib/*/xtables/*.so",
}

// evict drops these files, and no others of the machine's, from the page cache.
func evict() error {
	patterns := coldFiles
	for _, dir := range pluginPath() {
		patterns = append(patterns, filepath.Join(dir, "*"))
	}
	for _, pattern := range patterns {
		paths, err := filepath.Glob(pattern)
		if err != nil {
			return err
		}
		for _, path := range paths {
			if err := evictFile(path); err != nil {
				return fmt.Errorf("%s: %w", path, err)
			}
		}
	}
	return nil
}

func evictFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err == nil && info.Mode().IsRegular() {
		err = errors.Join(f.Sync(), unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED))
	}
	return errors.Join(err, f.Close())
}
