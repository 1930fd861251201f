package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/caddy-groupcache/caddy-groupcache/internal/freeport"
)

const (
	// roleEnv makes this program one of the servers that it measures.
	roleEnv    = "GROUPCACHE_BENCH_ROLE"
	roleCaddy  = "caddy"
	roleOrigin = "origin"

	// readyWithin is how long a server has to start.
	readyWithin = time.Minute
	// endWithin is how long it has to end before it is killed.
	endWithin = 10 * time.Second
)

// A process is a server that is measured.
type process struct {
	name    string
	cmd     *exec.Cmd
	stdin   io.Closer // as long as it is open, a server of ours runs
	logfile string
	over    chan struct{} // closed when it has ended
	err     error         // why; to be read once over is closed
}

// startRole starts this program as one of its servers.
func startRole(dir, name, role string, args ...string) (*process, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(exe, args...)
	cmd.Env = append(os.Environ(), roleEnv+"="+role, "XDG_DATA_HOME="+dir, "XDG_CONFIG_HOME="+dir)
	return start(dir, name, cmd)
}

func start(dir, name string, cmd *exec.Cmd) (*process, error) {
	logfile, err := os.Create(filepath.Join(dir, name+".log"))
	if err != nil {
		return nil, err
	}
	defer logfile.Close() // the process has its own
	cmd.Stdout, cmd.Stderr = logfile, logfile
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	p := &process{name: name, cmd: cmd, stdin: stdin, logfile: logfile.Name(), over: make(chan struct{})}
	go func() {
		p.err = cmd.Wait()
		close(p.over)
	}()
	return p, nil
}

// endWithParent ends a server when the program that started it is gone, however
// that came about: its standard input is a pipe that the other holds open.
func endWithParent() {
	_, _ = io.Copy(io.Discard, os.Stdin) // either way nobody holds it any more
	if self, err := os.FindProcess(os.Getpid()); err != nil || self.Signal(syscall.SIGTERM) != nil {
		os.Exit(0)
	}
}

// end ends the server and returns when it is gone.
func (p *process) end() {
	p.stdin.Close()
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may be over by now
	select {
	case <-p.over:
	case <-time.After(endWithin):
		_ = p.cmd.Process.Kill()
		<-p.over
	}
}

// await returns when all addresses accept connections.
func (p *process) await(ctx context.Context, addrs ...string) error {
	for _, addr := range addrs {
		err := poll(ctx, func() error {
			select {
			case <-p.over:
				return final{p.obituary()}
			default:
			}
			c, err := net.Dial("tcp", addr)
			if err == nil {
				c.Close()
			}
			return err
		})
		if err != nil {
			return fmt.Errorf("waiting for %s at %s: %w", p.name, addr, err)
		}
	}
	return nil
}

// obituary tells why a server ended that should not have.
func (p *process) obituary() error {
	log, err := os.ReadFile(p.logfile)
	if err != nil {
		log = []byte(err.Error())
	}
	const enough = 4 << 10
	if len(log) > enough {
		log = log[len(log)-enough:]
	}
	return fmt.Errorf("it has ended: %v; the end of its log:\n%s", p.err, log)
}

// final is an error that trying again will not change.
type final struct{ error }

// poll tries again and again for as long as a server may take to be ready.
func poll(ctx context.Context, try func() error) error {
	ctx, cancel := context.WithTimeout(ctx, readyWithin)
	defer cancel()
	for {
		err := try()
		if err == nil || errors.As(err, new(final)) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// freeAddr returns an address for a server.
func freeAddr() (string, error) {
	addrs, _, err := freeport.Bench.Take(1)
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
