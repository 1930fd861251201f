package caddygroupcache

import (
	"io"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// gossipLog is memberlist's log, line by line, turned into ours.
//
// Two things memberlist tells nowhere else, so they are taken from its text,
// and an upgrade of memberlist has to look at them (tests fail if it changed):
// that it refused bytes which it could not decode, open or attribute, and that
// a probe made a member suspect.
type gossipLog struct {
	log     *zap.Logger
	refused *atomic.Int64
	suspect func(name string)
	quiet   atomic.Bool // closed sockets are no news

	// mu guards kinds.
	mu    sync.Mutex
	kinds map[string]*logKind
}

// logKind is the lines that differ only in names and numbers.
type logKind struct {
	at   time.Time // last written
	held int       // not written since
}

// What gossipTransport refuses goes the same way.
const (
	tooManyStreams = "too many streams at the same time"
	refusedStream  = "stream of a stranger"
	refusedPacket  = "packet of a stranger"
)

// refusals are the beginnings of the lines about bytes that were refused.
var refusals = []string{
	"failed to receive",
	"Failed to receive",
	"unexpected double",
	"discarding",
	"cannot decode",
	"label header cannot be empty",
	"Failed to read remote state",
	"Failed push/pull merge",
	"Failed to decode",
	"Failed to decompress",
	"Decrypt packet failed",
	"Got invalid checksum",
	"missing message type",
	"msg type (",
	"Message type (",
	"Received invalid msgType",
	"Compound request had",
	"UDP packet too short",
	"Too many pending push/pull",
	"ignoring alive message",
	"Ignoring an alive message",
	tooManyStreams,
	refusedStream,
	refusedPacket,
}

var _ io.Writer = (*gossipLog)(nil)

// Write takes one line: log.Logger calls it once for each.
func (g *gossipLog) Write(p []byte) (int, error) {
	if g.quiet.Load() {
		return len(p), nil
	}
	level, text := splitLevel(strings.TrimSpace(string(p)))
	if level >= zapcore.WarnLevel && slices.ContainsFunc(refusals, func(s string) bool { return strings.HasPrefix(text, s) }) {
		g.refused.Add(1)
		// Whose fault it is, nobody knows; it is not an error of this node.
		g.refusal("gossip", text)
		return len(p), nil
	}
	if name, ok := strings.CutPrefix(text, "Suspect "); ok && level == zapcore.InfoLevel {
		if name, ok = strings.CutSuffix(name, " has failed, no acks received"); ok {
			g.suspect(name)
		}
	}
	if level >= zapcore.WarnLevel {
		g.limited(level, kindOf(text), text)
	} else if ce := g.log.Check(level, text); ce != nil {
		ce.Write()
	}
	return len(p), nil
}

// splitLevel takes memberlist's level and name off a line.
func splitLevel(line string) (zapcore.Level, string) {
	level := zapcore.ErrorLevel // "Err: ", of which there are a few
	if tag, rest, ok := strings.Cut(line, "] "); ok && strings.HasPrefix(tag, "[") {
		line = rest
		switch tag {
		case "[DEBUG":
			level = zapcore.DebugLevel
		case "[INFO":
			level = zapcore.InfoLevel
		case "[WARN":
			level = zapcore.WarnLevel
		}
	}
	return level, strings.TrimPrefix(line, "memberlist: ")
}

// refusal writes that something was refused at a port.
func (g *gossipLog) refusal(port, why string) {
	g.limited(zapcore.WarnLevel, kindOf(why), "refused a stranger", zap.String("port", port), zap.String("reason", why))
}

// limited writes at most one line of a kind in quietFor: anyone who can reach
// the port could fill the log otherwise.
func (g *gossipLog) limited(level zapcore.Level, name, message string, fields ...zap.Field) {
	now := time.Now()
	g.mu.Lock()
	kind := g.kindLocked(name)
	if !kind.at.IsZero() && now.Sub(kind.at) < quietFor {
		kind.held++
		g.mu.Unlock()
		return
	}
	held := kind.held
	kind.at, kind.held = now, 0
	g.mu.Unlock()
	if ce := g.log.Check(level, message); ce != nil {
		ce.Write(append(fields, zap.Int("held_back", held))...)
	}
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

func (g *gossipLog) kindLocked(name string) *logKind {
	kind := g.kinds[name]
	if kind == nil {
		if len(g.kinds) >= maxLogKinds {
			name = "any other"
		}
		if kind = g.kinds[name]; kind == nil {
			kind = new(logKind)
			g.kinds[name] = kind
		}
	}
	return kind
}
