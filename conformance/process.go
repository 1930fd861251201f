package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"time"
)

const (
	// keeperEnv makes this program the keeper of another: it runs its
	// arguments, and ends them when nobody holds its standard input any more.
	// So nothing outlives this program, however that ends.
	keeperEnv = "GROUPCACHE_CONFORMANCE_KEEPER"

	// endWithin is how long a process has to end before it is killed.
	endWithin = 5 * time.Second
	// logEnd is how much of a log an error shows.
	logEnd = 4 << 10
)

// keep runs a program until it or standard input ends, and returns its exit
// code.
func keep(args []string) int {
	signal.Ignore(os.Interrupt) // Ctrl-C goes to the program too
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), keeperEnv+"=")
	if err := cmd.Start(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // either way nobody holds it any more
		if cmd.Process.Signal(os.Interrupt) != nil {
			_ = cmd.Process.Kill() // no signals on this system, or it is over
		}
		time.AfterFunc(endWithin, func() { _ = cmd.Process.Kill() })
	}()
	_ = cmd.Wait() // ProcessState has the result
	return cmd.ProcessState.ExitCode()
}

// A process is a program under its keeper.
type process struct {
	name  string
	log   string // the file that has its standard error, and output unless taken
	stdin io.Closer
	over  chan struct{} // closed when it has ended
	err   error         // how; to be read once over is closed
	ended bool          // by us
}

// startProcess starts a program. Its standard output goes to out, or to its
// log if that is nil.
func startProcess(dir, name string, env []string, out io.Writer, args ...string) (*process, error) {
	p := &process{name: name, log: filepath.Join(dir, name+".log"), over: make(chan struct{})}
	log, err := os.Create(p.log)
	if err != nil {
		return nil, err
	}
	defer log.Close() // the process has its own
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, log, log
	cmd.Env = append(append(os.Environ(), env...), keeperEnv+"=1")
	cmd.WaitDelay = time.Second
	if out != nil {
		cmd.Stdout = out
	}
	if p.stdin, err = cmd.StdinPipe(); err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	go func() {
		p.err = cmd.Wait()
		close(p.over)
	}()
	return p, nil
}

// wait returns when the process has ended by itself, or ctx has.
func (p *process) wait(ctx context.Context) error {
	select {
	case <-p.over:
		if p.err == nil {
			return nil
		}
		return p.obituary()
	case <-ctx.Done():
		return errors.Join(context.Cause(ctx), p.end())
	}
}

// end ends the process. It returns an error if that was over before.
func (p *process) end() error {
	if p.ended {
		return nil
	}
	p.ended = true
	select {
	case <-p.over:
		return p.obituary()
	default:
	}
	p.stdin.Close()
	<-p.over // the keeper sees to it
	return nil
}

// obituary tells why a process ended that should not have.
func (p *process) obituary() error {
	log, err := os.ReadFile(p.log)
	if err != nil {
		log = []byte(err.Error())
	}
	return fmt.Errorf("%s has ended: %v; the end of its log:\n%s", p.name, p.err, log[max(0, len(log)-logEnd):])
}
