package rfc9111

import (
	"net/http"
	"reflect"
	"testing"
	"time"
	"unsafe"
)

const sec = time.Second

// header builds a header from name, value, name, value; repeated names become
// several field lines.
func header(fields ...string) http.Header {
	h := http.Header{}
	for i := 0; i < len(fields); i += 2 {
		h.Add(fields[i], fields[i+1])
	}
	return h
}

func cacheControl(lines ...string) http.Header {
	return http.Header{"Cache-Control": lines}
}

func delta(d time.Duration) Delta { return Delta{D: d, Set: true} }

// noon is when the responses of these tests arrive.
var noon = time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)

func date(t time.Time) string { return t.UTC().Format(http.TimeFormat) }

// exchange is a GET that was answered at noon, at once.
func exchange(status int, response ...string) Exchange {
	return Exchange{Method: "GET", Status: status, Response: header(response...), Sent: noon, Received: noon}
}

func checkDelta(t *testing.T, d Delta) {
	if d.D < 0 || d.D > maxDelta || d.D%time.Second != 0 || !d.Set && d != (Delta{}) {
		t.Errorf("%+v", d)
	}
}

func equalHeader(t *testing.T, got, want http.Header) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("\n got %v\nwant %v", got, want)
	}
}

var (
	lm    = date(noon)
	later = date(noon.Add(sec))
	early = date(noon.Add(-sec))
)

// stepped returns a reading of the clock as it would be had its settable part been set
// forward, or back, by whole seconds: what suspending a machine or correcting its clock does.
func stepped(t time.Time, by time.Duration) time.Time {
	*(*int64)(unsafe.Pointer(&t)) += int64(by/time.Second) << 30 // the seconds of a time.Time that has both parts
	return t
}

// Selecting returns what AppendSelecting appends.
func Selecting(names []string, request http.Header) string {
	var space [192]byte
	return string(AppendSelecting(space[:0], names, request))
}
