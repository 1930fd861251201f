// Package purging reads what comes from outside to purge something: the JSON of the
// purge API, and requests such as PURGE /path, as plugins of content management systems
// send them. It says what they name, who may send them, which refusals are logged, and
// what the nodes of the cluster have answered.
package purging

import (
	"fmt"
	"net/http"
)

// An Error is the answer to a purge that purges nothing.
type Error struct {
	Status int // of HTTP
	Text   string
}

// Error returns the sentence that the client gets.
func (e Error) Error() string { return e.Text }

// Malformed returns the Error for what no cache could understand.
func Malformed(format string, args ...any) error {
	return Error{http.StatusBadRequest, fmt.Sprintf(format, args...)}
}

// Unsupported returns the Error for what other caches do and this one cannot.
func Unsupported(format string, args ...any) error {
	return Error{http.StatusNotImplemented, fmt.Sprintf(format, args...)}
}
