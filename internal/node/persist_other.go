//go:build !(linux || darwin || freebsd || netbsd || openbsd || dragonfly)

package node

import "os"

const lockName = "cache.lock"

// takeLock takes no lock: these systems have others, or none.
func takeLock(name, _ string) (*os.File, error) {
	return os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
}

func openOwn(name string) (*os.File, error) { return os.Open(name) }
