package gossip

import (
	"maps"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

const (
	quietFor        = time.Minute // between two lines of one kind
	maxLogKinds     = 64
	maxLogKindBytes = 48
)

// A LimitedLog writes at most one line of a kind in a minute: every process that
// can reach a port could fill the log otherwise.
type LimitedLog struct {
	log *zap.Logger

	mu    sync.Mutex // guards kinds
	kinds map[string]*logKind
}

// A logKind is the lines that differ only in names and numbers.
type logKind struct {
	at   time.Time // last written
	held int       // not written since
}

// NewLimitedLog returns a log that writes to another one.
func NewLimitedLog(log *zap.Logger) *LimitedLog {
	return &LimitedLog{log: log, kinds: make(map[string]*logKind)}
}

// Refused writes that a port has refused a packet, stream or connection, and why.
func (l *LimitedLog) Refused(port, why string) {
	l.Write(zapcore.WarnLevel, kindOf(why), "rejected unauthenticated peer", zap.String("port", port), zap.String("reason", why))
}

// Write writes a line of a kind, unless another one was written in the last minute.
// The line says how many were not written before it.
func (l *LimitedLog) Write(level zapcore.Level, kind, message string, fields ...zap.Field) {
	held, ok := l.take(kind)
	if !ok {
		return
	}
	if ce := l.log.Check(level, message); ce != nil {
		ce.Write(append(fields, zap.Int("held_back", held))...)
	}
}

// take reports whether a line of a kind may be written, and if so, how many were
// held back before it.
func (l *LimitedLog) take(name string) (held int, ok bool) {
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	kind := l.kindLocked(name, now)
	if !kind.at.IsZero() && now.Sub(kind.at) < quietFor {
		kind.held++
		return 0, false
	}
	held = kind.held
	kind.at, kind.held = now, 0
	return held, true
}

// kindLocked returns the record of a kind. Kinds whose minute is over make room: members
// have other names after each start, and would be "any other" for ever after some of them.
func (l *LimitedLog) kindLocked(name string, now time.Time) *logKind {
	kind := l.kinds[name]
	if kind == nil {
		if len(l.kinds) >= maxLogKinds {
			maps.DeleteFunc(l.kinds, func(_ string, one *logKind) bool { return now.Sub(one.at) >= quietFor })
		}
		if len(l.kinds) >= maxLogKinds {
			name = "any other"
		}
		if kind = l.kinds[name]; kind == nil {
			kind = new(logKind)
			l.kinds[name] = kind
		}
	}
	return kind
}

// kindOf finds the kind of a text by its words up to the first that looks like a
// name or number. Some have a name before that; hence the last resort of
// kindLocked.
func kindOf(text string) string {
	if i := strings.IndexAny(text, `:'"=(0123456789`); i >= 0 {
		text = text[:i]
	}
	return text[:min(len(text), maxLogKindBytes)]
}
