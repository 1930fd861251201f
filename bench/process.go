package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	_ "github.com/caddyserver/caddy/v2/modules/standard"

	"github.com/caddy-groupcache/caddy-groupcache/internal/harness"
)

// roleOrigin is this program as the upstream.
const roleOrigin = "origin"

// roles are the servers that this program can be.
var roles = map[string]func(){
	harness.Caddy: caddycmd.Main,
	roleOrigin: func() {
		fmt.Fprintln(os.Stderr, serveOrigin(os.Args[1]))
		os.Exit(1)
	},
}

// start starts a server that is no node, and returns when it accepts connections.
func (l *lab) start(ctx context.Context, name, addr string, cmd *exec.Cmd) (*harness.Process, error) {
	p, err := harness.Start(cmd, name, filepath.Join(l.dir, name+".log"))
	if err != nil {
		return nil, err
	}
	return p, p.AwaitListener(ctx, addr)
}

// freeAddr returns an address for a server.
func freeAddr() (string, error) {
	addrs, _, err := harness.Bench.Take(1)
	if err != nil {
		return "", err
	}
	return addrs[0], nil
}

// cpuTime returns the processor time that processes and their descendants have
// used. It reads /proc, so it needs Linux.
func cpuTime(roots ...int) (time.Duration, error) {
	names, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil || len(names) == 0 {
		return 0, errors.New("no processor times: this needs Linux with /proc")
	}
	all := make(map[int]procStat)
	for _, name := range names {
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(name)))
		if s, err := readStat(name); err == nil { // else it is over
			all[pid] = s
		}
	}
	var sum time.Duration
	for pid, s := range all {
		for p := pid; p != 0; p = all[p].parent {
			if slices.Contains(roots, p) {
				used, err := clockOf(pid)
				if err != nil {
					used = s.used
				}
				sum += used
				break
			}
		}
	}
	return sum, nil
}

// ownTime returns the processor time of this process: the load generator's.
func ownTime() time.Duration {
	used, err := clockOf(os.Getpid())
	if err != nil {
		s, _ := readStat("/proc/self/stat") // cpuTime reports it if that can't be read
		used = s.used
	}
	return used
}

// machineTime returns the processor time that the whole machine has used, and
// what this program and the servers that it has started and ended had of it.
func machineTime() (all, own time.Duration) {
	ticks := func(fields []string) (sum time.Duration) {
		for _, f := range fields {
			n, _ := strconv.ParseInt(f, 10, 64)
			sum += time.Duration(n) * (time.Second / 100)
		}
		return sum
	}
	b, _ := os.ReadFile("/proc/self/stat")
	if f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:])); len(f) > 14 {
		own = ticks(f[11:15])
	}
	if f := strings.Fields(firstLine("/proc/stat")); len(f) > 8 { // user nice system idle iowait irq softirq steal
		all = ticks(f[1:4]) + ticks(f[6:9])
	}
	return all, own
}

type procStat struct {
	parent int
	used   time.Duration // in units of 10 ms
}

func readStat(name string) (procStat, error) {
	b, err := os.ReadFile(name)
	if err != nil {
		return procStat{}, err
	}
	f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:])) // the program's name may hold anything
	if len(f) < 13 {
		return procStat{}, fmt.Errorf("%s: can't read %q", name, b)
	}
	parent, _ := strconv.Atoi(f[1])
	user, _ := strconv.ParseInt(f[11], 10, 64)
	system, _ := strconv.ParseInt(f[12], 10, 64)
	return procStat{parent, time.Duration(user+system) * (time.Second / 100)}, nil
}

// resident returns the resident memory of a process in bytes.
func resident(pid int) (int64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if value, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
			return kib << 10, err
		}
	}
	return 0, errors.New("no VmRSS")
}
