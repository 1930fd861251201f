package gossip

import (
	"strings"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/caddy-groupcache/caddy-groupcache/internal/ratelimit"
)

const (
	maxLogKinds     = 64
	maxLogKindBytes = 48
)

// A LimitedLog writes at most one line of a kind in a minute.
type LimitedLog struct {
	log   *zap.Logger
	lines ratelimit.Limiter
}

// NewLimitedLog returns a log that writes to another one.
func NewLimitedLog(log *zap.Logger) *LimitedLog { return &LimitedLog{log: log} }

// Refused writes that a port has refused a packet, stream or connection, and why.
func (l *LimitedLog) Refused(port, why string) {
	l.Write(zapcore.WarnLevel, kindOf(why), "rejected unauthenticated peer", zap.String("port", port), zap.String("reason", why))
}

// Write writes a line of a kind, unless another one was written in the last minute.
// The line says how many were not written before it.
func (l *LimitedLog) Write(level zapcore.Level, kind, message string, fields ...zap.Field) {
	held, ok := l.lines.Take(kind, maxLogKinds, time.Now())
	if !ok {
		return
	}
	if ce := l.log.Check(level, message); ce != nil {
		ce.Write(append(fields, zap.Int("held_back", held))...)
	}
}

// kindOf finds the kind of a text by its words up to the first that looks like a
// name or number. Some have a name before that; hence maxLogKinds.
func kindOf(text string) string {
	if i := strings.IndexAny(text, `:'"=(0123456789`); i >= 0 {
		text = text[:i]
	}
	return text[:min(len(text), maxLogKindBytes)]
}
