//go:build linux || darwin || freebsd || netbsd || openbsd || dragonfly

package node

import (
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
)

// lockName is the file that says whose a directory is.
const lockName = "cache.lock"

// takeLock takes the lock of a directory until the file is closed, or the process
// ends. It fails if another process has it.
func takeLock(name, node string) (*os.File, error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0o600)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil {
		if s, ok := info.Sys().(*syscall.Stat_t); !info.Mode().IsRegular() || ok && s.Nlink != 1 {
			err = fmt.Errorf("%s is no file, or one that has another name too, and would be written over", name)
		}
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		whose, _ := io.ReadAll(io.LimitReader(f, 300))
		_ = f.Close()
		return nil, fmt.Errorf("%s is locked by %q (%w)", name, strings.TrimSpace(string(whose)), err)
	}
	if err := f.Truncate(0); err == nil {
		_, _ = fmt.Fprintf(f, "process %d, node %s\n", os.Getpid(), node) // only for that error
	}
	return f, nil
}

// openOwn opens a file that must be this process's user's, and no link or device.
func openOwn(name string) (*os.File, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil {
		who, ok := info.Sys().(*syscall.Stat_t)
		switch {
		case !info.Mode().IsRegular():
			err = fmt.Errorf("%s is no file", name)
		case ok && int(who.Uid) != os.Geteuid():
			err = fmt.Errorf("%s belongs to user %d, and Caddy runs as user %d", name, who.Uid, os.Geteuid())
		case info.Mode().Perm()&0o022 != 0:
			err = fmt.Errorf("%s can be written to by other users", name)
		}
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}
