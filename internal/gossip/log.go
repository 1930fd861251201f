package gossip

import (
	"io"
	"slices"
	"strings"
	"sync/atomic"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// A memberlistLog turns memberlist's log, line by line, into this process's.
//
// memberlist tells two things nowhere else, so they are taken from its text, and
// an upgrade of memberlist has to look at them (tests fail if it changed): that
// it refused bytes which it could not decode or attribute, and that a probe made
// a member suspect.
type memberlistLog struct {
	log     *zap.Logger
	limited *LimitedLog
	refused *atomic.Int64
	suspect func(name string)
	secured bool        // streams are authenticated before memberlist reads from them
	quiet   atomic.Bool // closed sockets are no news
}

func newMemberlistLog(log *zap.Logger, refused *atomic.Int64, suspect func(name string)) *memberlistLog {
	return &memberlistLog{log: log, limited: NewLimitedLog(log), refused: refused, suspect: suspect}
}

// The transport's own refusals are logged as memberlist's.
const (
	tooManyStreams = "too many streams at the same time"
	refusedStream  = "unauthenticated stream"
	refusedPacket  = "unauthenticated packet"
	refusedMessage = "unknown packet"
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
	refusedMessage,
}

// refusedMember begins the line about a member whose description is refused.
const refusedMember = "ignoring alive message for "

// ends are what the lines say about streams that broke off.
var ends = []string{": EOF", "unexpected EOF", "connection reset by peer", "broken pipe", "i/o timeout", "use of closed network connection"}

// Write takes one line: log.Logger calls it once for each.
func (l *memberlistLog) Write(p []byte) (int, error) {
	if l.quiet.Load() {
		return len(p), nil
	}
	level, text := splitLevel(strings.TrimSpace(string(p)))
	if strings.HasPrefix(text, "Binding to public address") {
		return len(p), nil // memberlist does not know of the seal; without one the app warns
	}
	if level >= zapcore.WarnLevel && slices.ContainsFunc(refusals, func(s string) bool { return strings.HasPrefix(text, s) }) {
		if l.secured && slices.ContainsFunc(ends, func(s string) bool { return strings.Contains(text, s) }) {
			return len(p), nil // a member was killed or frozen amid it
		}
		l.refused.Add(1)
		if why, ok := strings.CutPrefix(text, refusedMember); ok {
			l.limited.Write(zapcore.WarnLevel, refusedMember+why, "refused a member", zap.String("member", why))
			return len(p), nil
		}
		// The sender cannot be told from a forger; it is no error of this node.
		l.limited.Refused("gossip", text)
		return len(p), nil
	}
	if name, ok := strings.CutPrefix(text, "Suspect "); ok && level == zapcore.InfoLevel {
		if name, ok = strings.CutSuffix(name, " has failed, no acks received"); ok {
			l.suspect(name)
		}
	}
	if level >= zapcore.WarnLevel {
		l.limited.Write(level, kindOf(text), text)
	} else if ce := l.log.Check(level, text); ce != nil {
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

// Interface guards
var _ io.Writer = (*memberlistLog)(nil)
