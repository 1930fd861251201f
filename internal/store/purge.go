package store

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"golang.org/x/net/idna"

	"github.com/caddy-groupcache/caddy-groupcache/internal/guard"
)

// A purge takes back what was fetched before it. It is not carried out on the
// entries but remembered, and each entry is compared with it when it is next
// looked up or comes in, so that a purge costs the same however much is stored,
// and reaches what is still on its way: a fill, or another node's answer.
//
// Times are this node's own: a purge counts as of its arrival, an entry as of
// the latest time at which it can have been fetched. So no clocks of different
// nodes are ever compared.
//
// Invariants:
//   - seq is raised after a record is in, and a resource is marked with the seq
//     that was read before it was compared, so no record is skipped;
//   - before seq is raised, too, marks has it where it is looked for by whatever
//     the purge may be about;
//   - a record is dropped only after a sweep has compared all resources with it.
//     What comes in after that is refused if it was fetched before and nobody
//     has looked at it since (floor): rather store too little than what was
//     purged.
type purges struct {
	seq   atomic.Uint64 // how many there were
	marks marks

	mu     sync.RWMutex      // guards below
	scopes map[string]*scope // by group; "": all groups
	order  []record          // oldest first
	listed int               // prefixes among them
	floor  time.Time         // of the youngest record that was dropped
	sweep  *time.Timer       // nil: no sweep is due
	closed bool
}

// marks tell of nearly every entry that no purge since it was last compared is
// about it, at the price of a few loads: what a hit pays while purges come in.
// Hashes share places, so they may only say no less than there is.
type marks struct {
	wide   atomic.Uint64             // seq of the last purge by anything but a hash
	places [markPlaces]atomic.Uint64 // seq of the last purge by a hash that belongs here
}

// markPlaces is some more than there are purges between two hits of what is
// popular, even at thousands of purges a second. They take 128 KiB.
const markPlaces = 1 << 14

func (m *marks) place(hash uint64) *atomic.Uint64 { return &m.places[hash%markPlaces] }

// since reports whether a purge after a seq may be about an entry.
func (m *marks) since(seq uint64, k Key, e *Entry) bool {
	if m.wide.Load() > seq {
		return true
	}
	return e.anySelector(k, func(hash uint64) bool { return m.place(hash).Load() > seq })
}

// A Kind says what the value of a Selector is.
type Kind uint8

// What can be purged. The values are part of the peer protocol.
const (
	All    Kind = iota + 1 // everything; the value is empty
	URL                    // one URL, as URLOf makes it
	Prefix                 // URLs that begin so
	Host                   // a host, with its port or for any port
	Tag                    // a cache tag
	Group                  // a cache group of an origin (RFC 9875), as GroupOf makes it
	OfKey                  // the bytes of a Key
	// KindCount is one more than the last.
	KindCount
)

var kindNames = [KindCount]string{All: "all", URL: "url", Prefix: "prefix", Host: "host", Tag: "tag", Group: "group", OfKey: "key"}

// Kinds returns all kinds.
func Kinds() []Kind { return []Kind{All, URL, Prefix, Host, Tag, Group, OfKey} }

func (k Kind) String() string { return kindNames[k] }

// Valid reports whether a Kind is one of those above.
func (k Kind) Valid() bool { return k > 0 && k < KindCount }

// A Selector names stored responses.
type Selector struct {
	Kind  Kind
	Value string
}

// Valid reports whether the kind is known, and the value can be one of its.
func (s Selector) Valid() bool {
	return s.Kind.Valid() && (s.Kind != OfKey || len(s.Value) == len(Key{}))
}

// Key returns the key that the selector names, or reports false if it names none.
func (s Selector) Key() (k Key, ok bool) {
	if s.Kind != OfKey || !s.Valid() {
		return k, false
	}
	return Key([]byte(s.Value)), true
}

// A scope is what was purged of one group, or of all.
type scope struct {
	all      stamps
	exact    map[uint64]stamps
	prefixes []prefix // oldest first
}

// stamps are the times of the last purges of something. A soft purge makes
// stale what a hard one drops.
type stamps struct{ hard, soft time.Time }

type prefix struct {
	value string
	at    stamps
	seq   uint64
}

// A record is one selector of a purge as it arrived.
type record struct {
	purge PurgeID
	scope string
	kind  Kind
	hash  uint64
	at    time.Time
	seq   uint64
}

const (
	// keepRecords is how long a purge is compared with what comes in: longer
	// than a fill takes by default.
	keepRecords = 2 * time.Minute

	// maxRecords is how many there may be before they are dropped sooner.
	maxRecords = 1 << 16

	// maxPrefixes bounds what an entry is compared with one by one.
	maxPrefixes = 1 << 10

	// PurgeGrace is more than nodes need to pass a purge on. What a node has
	// answered so long after a purge it has compared with it.
	PurgeGrace = 10 * time.Second
)

func (st *stamps) add(at time.Time, soft bool) {
	t := &st.hard
	if soft {
		t = &st.soft
	}
	if at.After(*t) {
		*t = at
	}
}

func (st stamps) merge(o stamps) stamps {
	st.add(o.hard, false)
	st.add(o.soft, true)
	return st
}

// Purge takes back what a purge names.
func (x *index) Purge(which Purge) {
	p := &x.purges
	p.mu.Lock()
	defer p.mu.Unlock()
	p.addLocked(which)
	x.dueLocked()
}

// Purged are purges that entries are compared with which are not in the index.
type Purged struct{ purges }

// NewPurged returns what some purges name.
func NewPurged(all []Purge) *Purged {
	p := new(Purged)
	for _, one := range all {
		p.addLocked(one) // nobody else has it yet
	}
	return p
}

// Has reports whether one of the purges, which may be a soft one, names an entry under a
// key of a group.
func (p *Purged) Has(group string, k Key, e *Entry) bool {
	return p.compare(group, k, e, 0) != stamps{}
}

func (p *purges) addLocked(which Purge) {
	group, soft := which.Group, which.Soft
	sc := p.scopes[group]
	if sc == nil {
		sc = &scope{exact: make(map[uint64]stamps)}
		if p.scopes == nil {
			p.scopes = make(map[string]*scope)
		}
		p.scopes[group] = sc
	}
	at, seq := time.Now(), p.seq.Load()+1
	for _, sel := range which.Selectors {
		r := newRecord(sel)
		r.purge, r.scope, r.at, r.seq = which.ID, group, at, seq
		switch sel.Kind {
		case All:
			sc.all.add(at, soft)
			p.marks.wide.Store(seq)
		case Prefix:
			one := prefix{value: sel.Value, seq: seq}
			one.at.add(at, soft)
			sc.prefixes = append(sc.prefixes, one)
			p.listed++
			p.marks.wide.Store(seq)
		default:
			st := sc.exact[r.hash]
			st.add(at, soft)
			sc.exact[r.hash] = st
			p.marks.place(r.hash).Store(seq)
		}
		p.order = append(p.order, r)
	}
	p.seq.Store(seq)
}

func newRecord(s Selector) record {
	return record{kind: s.Kind, hash: hashSelector(s.Kind, s.Value)}
}

// compare returns what purges have to say of an entry that has been compared up
// to since.
func (p *purges) compare(group string, k Key, e *Entry, since uint64) stamps {
	p.mu.RLock()
	defer p.mu.RUnlock()
	var st stamps
	for _, name := range [...]string{group, ""} {
		sc := p.scopes[name]
		if sc == nil {
			continue
		}
		st = st.merge(sc.all)
		if len(sc.exact) > 0 {
			e.anySelector(k, func(hash uint64) bool {
				st = st.merge(sc.exact[hash])
				return false
			})
		}
		for i := len(sc.prefixes) - 1; i >= 0 && sc.prefixes[i].seq > since; i-- {
			if strings.HasPrefix(e.URL(), sc.prefixes[i].value) {
				st = st.merge(sc.prefixes[i].at)
			}
		}
	}
	return st
}

// settle returns what is left of an entry: itself, a stale one, or nil. Of two
// things at one time it takes the one that purges more.
func (st stamps) settle(e *Entry) *Entry {
	var compared time.Time
	if e.Compared {
		compared = e.Checked
	}
	switch {
	case !st.hard.Before(compared) && !e.Fetched.After(st.hard):
		return nil
	case !st.soft.Before(compared) && !e.Sent.After(st.soft) && e.Fresh.TTL(st.soft) > 0:
		softened := *e
		softened.Fresh = e.Fresh.StaleAsOf(st.soft)
		return &softened
	}
	return e
}

// admit is settle for an entry that comes in.
func (p *purges) admit(group string, k Key, e *Entry) *Entry {
	if p.seq.Load() == 0 {
		return e
	}
	st := p.compare(group, k, e, 0)
	p.mu.RLock()
	floor := p.floor
	p.mu.RUnlock()
	if !floor.IsZero() && !e.Fetched.After(floor) && !e.Checked.After(floor.Add(PurgeGrace)) {
		return nil
	}
	if e.MadeBy() != 0 {
		return p.admitMade(group, k, e)
	}
	return st.settle(e)
}

// admitMade is admit for a response to the very request that caused a purge. It
// is as good as one that was fetched now, if no other purge since the request
// left is about it. If the request came to another node, the purge was
// acknowledged there before the entry was sent, so the request left no earlier
// than the entry's age before the purge arrived here.
func (p *purges) admitMade(group string, k Key, e *Entry) *Entry {
	p.mu.RLock()
	defer p.mu.RUnlock()
	own := len(p.order) - 1
	for own >= 0 && p.order[own].purge != e.MadeBy() {
		own--
	}
	if own < 0 {
		return nil
	}
	left := e.Fetched
	if before := p.order[own].at.Add(-e.Checked.Sub(e.Fetched)); before.Before(left) {
		left = before
	}
	for i := len(p.order) - 1; i >= 0 && !p.order[i].at.Before(left); i-- {
		if p.order[i].purge != e.MadeBy() && p.order[i].mayBeAbout(group, k, e) {
			return nil
		}
	}
	made := *e
	made.SetMadeBy(0)
	made.Compared = false
	made.Sent = time.Now()
	made.Fetched, made.Checked = made.Sent, made.Sent
	return &made
}

func (x *index) recheck(sh *shard, k Key) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if r := sh.resources.get(k); r != nil {
		x.recheckLocked(sh, r)
	}
}

func (r record) mayBeAbout(group string, k Key, e *Entry) bool {
	switch {
	case r.scope != "" && r.scope != group:
		return false
	case r.kind == All, r.kind == Prefix:
		return true
	}
	return e.anySelector(k, func(hash uint64) bool { return hash == r.hash })
}

// recheckLocked compares a resource with the purges since it was last compared.
func (x *index) recheckLocked(sh *shard, r *resource) {
	seq, since := x.purges.seq.Load(), r.compared.Load()
	left := make([]*Entry, 0, len(r.variants))
	changed := false
	for _, e := range r.variants {
		settled := x.purges.compare(r.space.Name, r.key, e, since).settle(e)
		changed = changed || settled != e
		if settled != nil {
			left = append(left, settled)
		}
	}
	if changed {
		sh.setVariantsLocked(r, left)
	}
	r.compared.Store(seq)
}

// unaffected reports whether a resource is as good as before the purges since it
// was last compared, as most are. The shard is locked, if only for reading.
func (x *index) unaffected(r *resource) bool {
	seq, since := x.purges.seq.Load(), r.compared.Load()
	for _, e := range r.variants {
		if x.purges.marks.since(since, r.key, e) && x.purges.compare(r.space.Name, r.key, e, since).settle(e) != e {
			return false
		}
	}
	r.compared.Store(seq) // another reader may have stored a later one: then it is compared once more
	return true
}

// Purged reports whether a response that nobody has stored yet has been purged
// since its request left, and whether at least softly.
func (x *index) Purged(space *Namespace, k Key, e *Entry) (hard, any bool) {
	if x.purges.seq.Load() == 0 {
		return false, false
	}
	settled := x.purges.admit(space.Name, k, e)
	return settled == nil, settled != e
}

// dueLocked plans the next sweep, or has it begin at once.
func (x *index) dueLocked() {
	p := &x.purges
	if p.closed || len(p.order) == 0 {
		return
	}
	wait := time.Until(p.order[0].at.Add(keepRecords))
	if p.crowdedLocked() {
		wait = 0
	}
	switch {
	case p.sweep == nil:
		p.sweep = guard.AfterFunc(wait, x.sweepPurges)
	case wait == 0 && p.sweep.Stop(): // it has not begun
		p.sweep.Reset(0)
	}
}

func (p *purges) crowdedLocked() bool { return len(p.order) > maxRecords || p.listed > maxPrefixes }

// sweepPurges compares all resources with all purges, so that old records can go.
func (x *index) sweepPurges() {
	seq := x.purges.seq.Load()
	for i := range x.shards {
		x.shards[i].sweep(x)
	}
	p := &x.purges
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dropLocked(seq, time.Now().Add(-keepRecords))
	p.sweep = nil
	x.dueLocked()
}

// sweep compares the resources of a shard, a few at a time: hits go on between.
func (sh *shard) sweep(x *index) {
	sh.mu.RLock()
	keys := sh.resources.keys()
	sh.mu.RUnlock()
	for some := range slices.Chunk(keys, 64) {
		sh.mu.Lock()
		for _, k := range some {
			if r := sh.resources.get(k); r != nil && r.compared.Load() != x.purges.seq.Load() && !x.unaffected(r) {
				x.recheckLocked(sh, r)
			}
		}
		sh.mu.Unlock()
	}
}

// dropLocked drops records up to seq that are as old as a time. If there are
// more than there may be it drops younger ones too, until half of that is left.
func (p *purges) dropLocked(seq uint64, before time.Time) {
	crowded := p.crowdedLocked()
	n := 0
	for n < len(p.order) && p.order[n].seq <= seq {
		r := p.order[n]
		if r.at.After(before) && !(crowded && (len(p.order)-n > maxRecords/2 || p.listed > maxPrefixes/2)) {
			break
		}
		p.floor = r.at
		n++
		sc := p.scopes[r.scope]
		switch r.kind {
		case All: // costs nothing
		case Prefix:
			p.listed--
			sc.prefixes = sc.prefixes[1:] // they are in the same order
		default:
			if !sc.exact[r.hash].after(r.at) {
				delete(sc.exact, r.hash)
			}
		}
	}
	p.order = slices.Clone(p.order[n:])
	for group, sc := range p.scopes {
		if sc.prefixes = slices.Clone(sc.prefixes); len(sc.exact)+len(sc.prefixes) == 0 && !sc.all.after(p.floor) {
			delete(p.scopes, group) // other nodes may name any
		}
	}
}

// after reports whether one of the purges came after a time.
func (st stamps) after(t time.Time) bool { return st.hard.After(t) || st.soft.After(t) }

// close ends the sweeps.
func (p *purges) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	if p.sweep != nil {
		p.sweep.Stop()
	}
}

// URLOf returns the URL by which a request's response is purged: as the client
// sent it, with the host in lower case and without the scheme's own port, which an empty
// one stands for (RFC 3986 §6.2.3).
func URLOf(scheme, host, uri string) string {
	if uri != "" { // else it is the beginning of one
		host = strings.TrimSuffix(host, ":")
	}
	return scheme + "://" + normalHost(scheme, host) + uri
}

// ParseURL brings a URL of at most limit bytes into the form of URLOf. If it need not be
// whole, it may be a beginning of one that has at least the host. The error says what the
// text lacks.
func ParseURL(text string, whole bool, limit int) (string, error) {
	text = strings.Trim(text, " ") // no client sends it
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return "", errors.Unwrap(err)
	case u.Scheme != "http" && u.Scheme != "https", u.Host == "":
		return "", errors.New("it takes the scheme and the host, as in https://example.com/page")
	case u.User != nil, strings.Contains(text, "#"):
		return "", errors.New("user names and fragments are no part of what is asked for")
	case len(text) > limit:
		return "", fmt.Errorf("it is longer than %d bytes", limit)
	}
	host, err := ParseHost(u.Host)
	if err != nil {
		return "", err
	}
	_, uri, _ := strings.Cut(text, "://")
	if i := strings.IndexAny(uri, "/?"); i >= 0 {
		uri = uri[i:]
	} else {
		uri = ""
	}
	switch {
	case uri == "" && !whole && host != strings.ToLower(u.Host):
		return "", fmt.Errorf("clients send the host as %s, whose beginnings are others: end the host with a slash", host)
	case !strings.HasPrefix(uri, "/") && (whole || uri != ""): // else it ends where it ends: amid the host
		uri = "/" + uri
	}
	return URLOf(u.Scheme, host, uri), nil
}

// ParseHost brings a host, with a port or without, into the form in which clients send it:
// in lower case and in ASCII (RFC 5891). The error says what would be right.
func ParseHost(text string) (string, error) {
	u, err := url.Parse("http://" + text + "/")
	if err != nil || u.Host != text || u.Hostname() == "" {
		return "", errors.New("the host has to be one such as example.com, example.com:8080 or [::1]")
	}
	name, host := u.Hostname(), strings.ToLower(text)
	if strings.IndexFunc(name, func(c rune) bool { return c >= utf8.RuneSelf }) >= 0 {
		ascii, err := idna.Lookup.ToASCII(name)
		if err != nil {
			return "", fmt.Errorf("the host is no domain name: %w", err)
		}
		host = ascii + text[len(name):]
	}
	if i := strings.IndexFunc(host, func(c rune) bool { return !strings.ContainsRune(hostCharacters, c) }); i >= 0 {
		return "", fmt.Errorf("%q is no part of a host: name each host by itself, since there are no patterns and no lists", host[i:i+1])
	}
	return host, nil
}

// hostCharacters are those of names, addresses and ports. Of the others that URLs allow in a
// host, each means that more is meant than one host.
const hostCharacters = "abcdefghijklmnopqrstuvwxyz0123456789-._:[]"

// GroupOf returns the value of a Group selector (RFC 9875 §2.1): groups of
// different origins have nothing to do with each other.
func GroupOf(url, group string) string {
	origin, _ := cutOrigin(url)
	return origin + "\n" + group
}

func normalHost(scheme, host string) string {
	host = strings.ToLower(host)
	switch scheme {
	case "http":
		return strings.TrimSuffix(host, ":80")
	case "https":
		return strings.TrimSuffix(host, ":443")
	}
	return host
}

// cutOrigin splits a URL of URLOf.
func cutOrigin(url string) (origin, host string) {
	_, rest, _ := strings.Cut(url, "://")
	if host = rest; strings.IndexByte(rest, '/') >= 0 {
		host = rest[:strings.IndexByte(rest, '/')]
	}
	return url[:len(url)-len(rest)+len(host)], host
}
