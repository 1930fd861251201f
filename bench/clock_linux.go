package main

import (
	"time"

	"golang.org/x/sys/unix"
)

// clockOf returns the processor time that a process has used, by its clock: /proc has
// it in units of 10 ms.
func clockOf(pid int) (time.Duration, error) {
	const scheduler = 2 // CPUCLOCK_SCHED of the kernel, as clock_getcpuclockid(3) makes the identifier
	var t unix.Timespec
	err := unix.ClockGettime(int32(^pid<<3|scheduler), &t)
	return time.Duration(t.Nano()), err
}
