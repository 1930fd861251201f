//go:build unix

package caddygroupcache_test

import (
	"cmp"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// The upstream of the tests that look for foreign answers: each page names the
// user whose request it answers, so that an answer shows whose it is.

// latency is how long the upstream takes for each answer.
const latency = 100 * time.Millisecond

// Request fields by which a test tells the upstream, or the site, what to do.
const (
	outageField = "X-Outage"     // the upstream answers with this status
	ageField    = "X-Stated-Age" // seconds that the response says to be old; in responses too
	goneField   = "X-Upstream"   // the upstream breaks the connection off

	userField = "X-User" // in responses: whose request is answered
	madeField = "X-Made" // in responses: when, in nanoseconds since 1970
)

// A limit is how a response limits its own reuse, and what follows from that for
// other users.
type limit struct {
	name     string
	fields   []string      // of each response, in pairs
	tag      string        // format of the ETag, of the user; "": none
	modified time.Time     // Last-Modified of user 0; a second less for each further user
	dated    bool          // Date is the same
	expires  time.Duration // after the response is made; 0: no Expires
	cookie   bool          // the response sets a cookie of the user
	known    bool          // every second user is known by Authorization instead of Cookie

	lifetime time.Duration // how long it is fresh; 0: it may be given to its own user only
	stale    time.Duration // how long after that it may be served stale by its own words
	strict   bool          // it may never be served stale
	// Only the operator may stretch its lifetime, no client.
	operators bool
	public    bool // requests with Authorization may share it
}

func userName(i int) string { return "u" + strconv.Itoa(i) }

// identity returns the fields by which the upstream knows a user.
func (l *limit) identity(i int) []string {
	switch {
	case i < 0:
		return nil // somebody without a cookie
	case l.known && i%2 == 1:
		return []string{"Authorization", "Bearer " + userName(i)}
	}
	return []string{"Cookie", "user=" + userName(i)}
}

// anybody is the user of a request without a cookie.
const anybody = "anybody"

func userOf(h http.Header) (user string) {
	if token, ok := strings.CutPrefix(h.Get("Authorization"), "Bearer "); ok {
		return token
	}
	return cmp.Or(strings.TrimPrefix(h.Get("Cookie"), "user="), anybody)
}

// tagOf returns the ETag of a user's page.
func (l *limit) tagOf(user string) string {
	if l.tag == "" {
		return ""
	}
	return fmt.Sprintf(l.tag, user)
}

// describe sets the header of a user's page.
func (l *limit) describe(h http.Header, user, age string) {
	now := time.Now()
	h.Set("Content-Type", "text/plain")
	h.Set(userField, user)
	h.Set(madeField, strconv.FormatInt(now.UnixNano(), 10))
	for i := 0; i < len(l.fields); i += 2 {
		h.Set(l.fields[i], l.fields[i+1])
	}
	if age != "" {
		h.Set("Age", age)
	}
	h.Set(ageField, cmp.Or(h.Get("Age"), "0")) // also where a 304 takes the place of what was said before
	if l.tag != "" {
		h.Set("Etag", l.tagOf(user))
	}
	if l.expires > 0 {
		h.Set("Expires", now.Add(l.expires).UTC().Format(http.TimeFormat))
	}
	if !l.modified.IsZero() {
		i, _ := strconv.Atoi(strings.TrimPrefix(user, "u"))
		h.Set("Last-Modified", l.modified.Add(-time.Duration(i)*time.Second).UTC().Format(http.TimeFormat))
		if l.dated {
			h.Set("Date", h.Get("Last-Modified"))
		}
	}
	if l.cookie {
		h.Set("Set-Cookie", "user="+user)
	}
}

// slug is the limit's name as part of a path.
func (l *limit) slug() string {
	return strings.Map(func(r rune) rune {
		if 'a' <= r|0x20 && r|0x20 <= 'z' || '0' <= r && r <= '9' {
			return r
		}
		return '-'
	}, l.name)
}

// pageOf returns a user's page of a path. Its line has an odd length, so that a
// chunk in the wrong place does not fit.
func pageOf(user, path string, size int) string {
	line := user + " " + path + "\n"
	if len(line)%2 == 0 {
		line = " " + line
	}
	return strings.Repeat(line, size/len(line)+1)[:size]
}

// A personal upstream serves paths of the form /site/limit/... with the user's own page.
type personal struct {
	*origin
	limits map[string]*limit

	mu   sync.Mutex               // guards below
	next map[string]chan struct{} // closed by the next request for a path
	busy map[string]int           // requests under way
}

func startPersonal(t *testing.T, limits []*limit) *personal {
	t.Helper()
	u := &personal{limits: make(map[string]*limit), next: make(map[string]chan struct{}), busy: make(map[string]int)}
	for _, l := range limits {
		if u.limits[l.slug()] != nil {
			t.Fatalf("two limits have one path: %s", l.slug())
		}
		u.limits[l.slug()] = l
	}
	u.origin = startOrigin(t, u.serve)
	return u
}

// arrival returns a channel that the next request for a path closes.
func (u *personal) arrival(path string) <-chan struct{} {
	u.mu.Lock()
	defer u.mu.Unlock()
	c := make(chan struct{})
	u.next[path] = c
	return c
}

// idle reports whether no request for a path is under way.
func (u *personal) idle(path string) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.busy[path] == 0
}

// begin notes the begin of a request, and returns what notes its end.
func (u *personal) begin(path string) (end func()) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if c := u.next[path]; c != nil {
		close(c)
		delete(u.next, path)
	}
	u.busy[path]++
	return func() {
		u.mu.Lock()
		defer u.mu.Unlock()
		u.busy[path]--
	}
}

func (u *personal) serve(w http.ResponseWriter, r *http.Request) {
	defer u.begin(r.URL.Path)()
	if r.Header.Get(goneField) != "" {
		panic(http.ErrAbortHandler)
	}
	l, user := u.limits[strings.Split(r.URL.Path, "/")[2]], userOf(r.Header)
	time.Sleep(latency)
	if status, err := strconv.Atoi(r.Header.Get(outageField)); err == nil {
		w.WriteHeader(status)
		return
	}
	l.describe(w.Header(), user, r.Header.Get(ageField))
	// net/http takes any later time for a match, which may be another user's.
	if since := r.Header.Get("If-Modified-Since"); since != "" && since == w.Header().Get("Last-Modified") && r.Header.Get("If-None-Match") == "" {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	query := r.URL.Query()
	size, _ := strconv.Atoi(query.Get("size"))
	if query.Has("halves") && r.Method == http.MethodGet {
		w = &halves{ResponseWriter: w}
	}
	http.ServeContent(w, r, "", time.Time{}, strings.NewReader(pageOf(user, r.URL.Path, size)))
}

// halves sends a body without its length, and waits in the middle.
type halves struct {
	http.ResponseWriter
	waited bool
}

func (h *halves) WriteHeader(status int) {
	if status == http.StatusOK {
		h.Header().Del("Content-Length")
	}
	h.ResponseWriter.WriteHeader(status)
}

func (h *halves) Write(p []byte) (int, error) {
	if h.waited {
		return h.ResponseWriter.Write(p)
	}
	h.waited = true
	n, err := h.ResponseWriter.Write(p[:len(p)/2])
	if err != nil {
		return n, err
	}
	_ = http.NewResponseController(h.ResponseWriter).Flush()
	time.Sleep(latency)
	m, err := h.ResponseWriter.Write(p[len(p)/2:])
	return n + m, err
}

// startSites runs nodes that all have the same site: the lines in its braces, where
// %[1]s is the upstream's address, and %[2]s an address without a listener.
func startSites(t *testing.T, nodes int, o *origin, site string) cluster {
	t.Helper()
	c, nowhere := newCluster(t, nodes, o, ""), freePorts(t, 1)[0]
	for _, p := range c {
		p.app = "cache_size 1GiB"
		global, _, _ := strings.Cut(p.caddyfile(""), "\nhttp://:")
		_, port, _ := strings.Cut(p.http, ":")
		p.config = fmt.Sprintf("%s\nhttp://:%s {\n\tbind 127.0.0.1\n%s\n}\n", global, port, strings.NewReplacer("%[1]s", o.addr(), "%[2]s", nowhere).Replace(site))
	}
	for _, p := range c {
		p.start()
	}
	c.awaitMembers()
	return c
}

// handles returns the lines of a site that has a cache for each of some paths, with the
// options given there.
func handles(options map[string]string) string {
	var site strings.Builder
	for name, lines := range options {
		fmt.Fprintf(&site, `
	handle /%[1]s/* {
		groupcache {
			group %[1]s
			%[2]s
			%[3]s
		}
		reverse_proxy %%[1]s
	}`, name, patient, lines)
	}
	return site.String()
}
