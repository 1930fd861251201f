//go:build !linux

package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "the lab needs Linux: its faults are made with signals, limits and network namespaces")
	os.Exit(1)
}
