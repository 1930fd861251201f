package harness

import (
	"os/exec"
	"runtime"
	"sync"
	"syscall"
)

// launch starts a command that the kernel kills when this program is gone. The
// kernel means the thread that started it; so one thread starts all, and ends with
// the program only.
func launch(cmd *exec.Cmd) (err error) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	done := make(chan struct{})
	starter() <- func() {
		defer close(done)
		err = cmd.Start()
	}
	<-done
	return err
}

var starter = sync.OnceValue(func() chan<- func() {
	starts := make(chan func())
	go func() {
		runtime.LockOSThread()
		for start := range starts {
			start()
		}
	}()
	return starts
})
