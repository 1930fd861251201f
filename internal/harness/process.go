// Package harness runs Caddy processes for tests, laboratories and examples. It
// writes a node's Caddyfile, starts a Caddy with it, waits until that serves and
// sees its cluster, asks its admin endpoint, and ends it, gracefully or not.
//
// The Caddy is a given binary, or the calling program itself, started once more:
// such a program calls Become before anything else. No process outlives the
// program that started it: it is killed with it on Linux, and elsewhere ends by
// itself if it was started in a role.
package harness

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	// roleEnv names the variable that has the role of a process.
	roleEnv = "GROUPCACHE_HARNESS_ROLE"
	// Caddy is the role of a node without a Binary.
	Caddy = "caddy"

	// readyWithin bounds Await.
	readyWithin = time.Minute
	// endWithin is how long a process has to end before it is killed.
	endWithin = 20 * time.Second
	// logEnd is how much of a log an error shows, in bytes.
	logEnd = 4 << 10
)

// Become makes this process what the program that started it by Self wants it to
// be: it calls the function of that role and does not return. In any other process
// it does nothing.
func Become(roles map[string]func()) {
	role, started := os.LookupEnv(roleEnv)
	if !started {
		return
	}
	_ = os.Unsetenv(roleEnv) // what this process starts has no role
	run := roles[role]
	if run == nil {
		fmt.Fprintf(os.Stderr, "this program has no role %q\n", role)
		os.Exit(2)
	}
	go endWithParent()
	os.Args[0] = role
	run()
	os.Exit(0)
}

// endWithParent ends this process, gracefully if it can, when the program that
// started it is gone: that holds the other end of standard input.
func endWithParent() {
	_, _ = io.Copy(io.Discard, os.Stdin) // an error says the same
	if self, err := os.FindProcess(os.Getpid()); err != nil || self.Signal(syscall.SIGTERM) != nil {
		os.Exit(0) // no signals on this system
	}
	time.Sleep(endWithin)
	os.Exit(3)
}

// Self returns a command that runs this program once more, in a role. Start has
// to start it.
func Self(role string, args ...string) *exec.Cmd {
	exe, err := os.Executable()
	cmd := exec.Command(exe, args...)
	cmd.Err = errors.Join(cmd.Err, err)
	cmd.Env = append(os.Environ(), roleEnv+"="+role)
	return cmd
}

// A Process is a program that was started.
type Process struct {
	Name string
	Cmd  *exec.Cmd
	Log  string // the file that its output is appended to

	stdin io.Closer // the process may end when this does
	over  chan struct{}
	ended atomic.Bool // by Kill or End
}

// Start starts a command. Its output is appended to the file log, unless the
// command has a place for it.
func Start(cmd *exec.Cmd, name, log string) (*Process, error) {
	return startBy(launch, cmd, name, log)
}

func startBy(launch func(*exec.Cmd) error, cmd *exec.Cmd, name, log string) (*Process, error) {
	file, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer file.Close() // the process has its own
	if cmd.Stdout == nil {
		cmd.Stdout = file
	}
	if cmd.Stderr == nil {
		cmd.Stderr = file
	}
	p := &Process{Name: name, Cmd: cmd, Log: log, over: make(chan struct{})}
	if p.stdin, err = cmd.StdinPipe(); err != nil {
		return nil, err
	}
	if err := launch(cmd); err != nil {
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	go func() {
		_ = cmd.Wait() // ProcessState has the result
		close(p.over)
	}()
	return p, nil
}

// Pid returns the number of the process.
func (p *Process) Pid() int { return p.Cmd.Process.Pid }

// Over returns a channel that is closed when the process has ended.
func (p *Process) Over() <-chan struct{} { return p.over }

// Running reports whether the process was started and has not ended.
func (p *Process) Running() bool { return p != nil && p.Err() == nil }

// ErrEnded is the end of a process that should have gone on.
var ErrEnded = errors.New("has ended")

// Err returns an error that is ErrEnded and shows the end of the log if the process
// has ended.
func (p *Process) Err() error {
	select {
	case <-p.over:
		return fmt.Errorf("%s %w: %v; the end of its log:\n%s", p.Name, ErrEnded, p.Cmd.ProcessState, p.logEnd())
	default:
		return nil
	}
}

func (p *Process) logEnd() []byte {
	log, err := os.ReadFile(p.Log)
	if err != nil {
		return []byte(err.Error())
	}
	return log[max(0, len(log)-logEnd):]
}

// Wait returns when the process has ended. It returns an error if that was not
// with success; if ctx ends first, it kills the process and returns the cause.
func (p *Process) Wait(ctx context.Context) error {
	select {
	case <-p.over:
		if p.Cmd.ProcessState.Success() {
			return nil
		}
		return p.Err()
	case <-ctx.Done():
		p.Kill()
		return context.Cause(ctx)
	}
}

// Signal sends a signal; that the process has ended is no error.
func (p *Process) Signal(s syscall.Signal) error {
	if err := p.Cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("%s: %v: %w", p.Name, s, err)
	}
	return nil
}

// Kill ends the process at once, frozen or not, and returns when it is gone.
func (p *Process) Kill() {
	p.ended.Store(true)
	_ = p.Cmd.Process.Kill() // it may be over by now
	<-p.over
}

// End ends the process as an operator would, and returns when it is gone. It
// returns an error if the process had ended before by itself, or had to be killed.
func (p *Process) End() error {
	if p.ended.Swap(true) {
		<-p.over
		return nil
	}
	if err := p.Err(); err != nil {
		return err
	}
	if p.Signal(syscall.SIGTERM) != nil {
		p.stdin.Close() // no signals on this system
	}
	select {
	case <-p.over:
		return nil
	case <-time.After(endWithin):
		p.Kill()
		return fmt.Errorf("%s did not end within %v", p.Name, endWithin)
	}
}

// Crashed returns an error if the log tells of a fault in the program.
func (p *Process) Crashed() error {
	log, err := os.ReadFile(p.Log)
	if err != nil {
		return err
	}
	for _, bad := range []string{"DATA RACE", "panic", "fatal error", "goroutine "} {
		if i := bytes.Index(log, []byte(bad)); i >= 0 {
			return fmt.Errorf("the log of %s has %q: %s", p.Name, bad, log[i:min(len(log), i+logEnd)])
		}
	}
	return nil
}

// AwaitListener waits until the process accepts connections at an address.
func (p *Process) AwaitListener(ctx context.Context, addr string) error {
	return Await(ctx, func() error {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			return errors.Join(p.Err(), err)
		}
		return conn.Close()
	})
}

// AwaitLine waits until the log has a whole line that begins with prefix, after
// spaces, and returns the line without these.
func (p *Process) AwaitLine(ctx context.Context, prefix string) (found string, err error) {
	err = Await(ctx, func() error {
		log, err := os.ReadFile(p.Log)
		if err != nil {
			return err
		}
		for line := range bytes.Lines(log) {
			if text := bytes.TrimSpace(line); bytes.HasSuffix(line, []byte("\n")) && bytes.HasPrefix(text, []byte(prefix)) {
				found = string(text)
				return nil
			}
		}
		return errors.Join(p.Err(), fmt.Errorf("%s has printed no line that begins with %q", p.Name, prefix))
	})
	return found, err
}

// Await calls try until it returns nil, for a minute at most. It gives up at once
// on an error that is ErrEnded, and when ctx has ended.
func Await(ctx context.Context, try func() error) error {
	ctx, cancel := context.WithTimeout(ctx, readyWithin)
	defer cancel()
	for {
		err := try()
		if err == nil || errors.Is(err, ErrEnded) {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w, and still: %w", context.Cause(ctx), err)
		case <-time.After(10 * time.Millisecond):
		}
	}
}
