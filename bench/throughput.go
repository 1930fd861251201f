package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddy-groupcache/caddy-groupcache/internal/harness"
)

// A contestant is one case of a contest.
type contestant struct {
	name    string
	against string // the contestant whose cost is the measure
	load    *load
	rival   bool                        // not this cache
	closely bool                        // it has closer times as many rounds
	prepare func(context.Context) error // before each round, for what other rounds may have evicted

	samples []sample
	pairs   []pairOf // a sample and one of what it is compared with, taken one right after the other
}

type pairOf struct{ own, other sample }

// closer is how many times as many rounds go to cases of which a few hundredths
// matter. It is odd, so that they and the others go first by turns.
const closer = 5

// What contestants are compared with.
const (
	ceilingName = "ceiling handler"
	fullName    = "ceiling, 17 fields"
	fullHitName = "local hit, 17 fields"
	proxyName   = "reverse_proxy"
	localName   = "local hit"
	laneName    = "local hit, express lane"

	remoteName       = "remote hit"
	remoteSecretName = "remote hit, secret"
	missName         = "miss"
	privateName      = "pass-through, private"
	noStoreName      = "pass-through, no-store"
	uploadName       = "upload"
	socketName       = "message over WebSocket"

	behindLane = ", behind the lane"

	filesName = "file_server"
)

// An arena is the servers of one contest.
type arena struct {
	b      *bench
	size   size
	http2  bool
	tls    bool
	alone  *node
	rivals []*rival
	plain  *pair
	secret *pair
}

// A pair is two nodes of which the second has so little memory that it keeps
// next to nothing of what the first owns. So it has to bring it, time and again.
type pair struct {
	owner, asker *node
	paths        []string // of what the first node owns and has
}

// pairConnections is how many connections a pair gets: no more bodies at a time
// than the small node has room for.
func (b *bench) pairConnections(s size) int {
	if s.bytes >= 1<<20 {
		return min(b.connections, 8)
	}
	return b.connections
}

func (b *bench) startPair(ctx context.Context, s size, secret string) (*pair, error) {
	small, count := "4MiB", b.remoteURLs
	if s.bytes >= 1<<20 {
		small, count = "32MiB", min(count, 32) // so few that misses don't take their place
	}
	nodes, err := b.lab.startCluster(ctx, cluster{sizes: []string{"512MiB", small}, secret: secret})
	if err != nil {
		return nil, err
	}
	p := &pair{owner: nodes[0], asker: nodes[1]}
	if p.paths, err = b.owned(ctx, p.owner, s, count); err != nil {
		p.end()
		return nil, fmt.Errorf("filling the cache: %w", err)
	}
	return p, nil
}

func (p *pair) end() {
	if p != nil {
		endAll([]*node{p.owner, p.asker})
	}
}

// owned fills a node with bodies that it owns and returns their paths. It owns
// those that are local hits the second time; others it has to bring.
func (b *bench) owned(ctx context.Context, n *node, s size, count int) ([]string, error) {
	var mu sync.Mutex
	var paths []string
	var tried atomic.Int64
	missing := func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(paths) < count
	}
	t := n.cache.target(false, s.bytes, nil)
	err := parallel(b.pairConnections(s), func() error {
		w, err := t.dial()
		if err != nil {
			return err
		}
		defer w.close()
		for missing() && ctx.Err() == nil {
			path := s.path("/owned/" + strconv.FormatInt(tried.Add(1), 10))
			for range 2 {
				a, err := w.do(path, nil)
				if err == nil {
					_, err = t.check(&a)
				}
				if err != nil {
					return err
				}
				if strings.HasSuffix(string(a.cache), "detail=local") {
					mu.Lock()
					paths = append(paths, path)
					mu.Unlock()
				}
			}
		}
		return ctx.Err()
	})
	return paths, err
}

// parallel calls f so many times at the same time and returns the first error.
func parallel(n int, f func() error) error {
	errs := make(chan error, n)
	for range n {
		go func() { errs <- f() }()
	}
	var first error
	for range n {
		if err := <-errs; first == nil {
			first = err
		}
	}
	return first
}

// until asks for one path again and again until Cache-Status makes the target's
// claim: a hot copy is kept now and then only.
func until(t *target) func(context.Context) error {
	return func(ctx context.Context) error {
		w, err := t.dial()
		if err != nil {
			return err
		}
		defer w.close()
		for range 1000 {
			a, err := w.do(t.path(0), t.fields)
			if err != nil {
				return err
			}
			if _, err = t.check(&a); err == nil {
				return ctx.Err()
			}
		}
		return fmt.Errorf("%s at %s has not become %q", t.path(0), t.addr, t.claims)
	}
}

// missCount makes paths that were never asked for.
var missCount atomic.Int64

func (a *arena) newPath(int64) string {
	return a.size.path("/new/" + strconv.FormatInt(missCount.Add(1), 10))
}

// contestants returns all cases. Those that need a pair are left out if there is
// none.
func (a *arena) contestants() []*contestant {
	if a.tls {
		return slices.Concat(a.hitsOverTLS(), a.rivalHits())
	}
	all := slices.Concat(a.ceilings(), a.hits(), a.remoteHits(), a.fetches(), a.streams(), a.rivalHits())
	for _, c := range all {
		c.closely = c.closely || !a.http2 && slices.Contains(closely, c.name)
	}
	return all
}

// closely are the cases that are looked at so, with HTTP/1.1.
var closely = []string{missName + behindLane, privateName + behindLane, noStoreName + behindLane, uploadName + behindLane, socketName + behindLane, localName, remoteName, remoteSecretName, missName, privateName, noStoreName}

func (a *arena) contestant(name, against string, t *target, servers ...*harness.Process) *contestant {
	return &contestant{name: name, against: against, load: &load{
		targets: []*target{t}, connections: a.b.connections, servers: servers,
	}}
}

// rival returns what is not this cache, in the node that is alone.
func (a *arena) rival(name, against string, t *target) *contestant {
	c := a.contestant(name, against, t, a.alone.Process)
	c.rival = true
	return c
}

func (a *arena) at(s site, path func(int64) string, claims ...string) *target {
	t := s.target(a.http2, a.size.bytes, path)
	t.claims = claims
	return t
}

// fixed is a path that is the same each time.
func (a *arena) fixed() func(int64) string { return always(a.size.path("/fixed")) }

// file is the path of a file of the arena's size.
func (a *arena) file() func(int64) string { return always(a.size.path(".html")) }

// ceilings serve from memory, or files, without a cache.
func (a *arena) ceilings() []*contestant {
	n := a.alone
	return []*contestant{
		a.rival(ceilingName, "", a.at(n.ceiling, a.fixed())),
		a.rival(fullName, ceilingName, a.at(n.full, a.fixed())),
		a.rival("respond", ceilingName, a.at(n.respond, always(a.size.path("")))),
		a.rival(filesName, ceilingName, a.at(n.files, a.file())),
	}
}

// hits are served from a node's own memory.
func (a *arena) hits() (all []*contestant) {
	n := a.alone
	local := a.at(n.cache, a.fixed(), "detail=local")
	hit := func(name, against string, t *target, prepare func(context.Context) error) {
		c := a.contestant(name, against, t, n.Process)
		c.prepare = prepare
		all = append(all, c)
	}
	hit(localName, ceilingName, local, until(local))
	lane := a.at(n.lane, a.fixed(), "detail=local")
	hit(a.laneCase(), localName, lane, until(lane))
	all[len(all)-1].closely = a.http2
	full := a.at(n.cache, always(fullPrefix+a.size.path("/fixed")), "detail=local")
	hit(fullHitName, ceilingName, full, until(full))

	if a.plain != nil {
		hot := a.at(a.plain.asker.cache, always(a.plain.paths[0]), "detail=hot")
		c := a.contestant("hot hit", ceilingName, hot, a.plain.owner.Process, a.plain.asker.Process)
		c.prepare = until(hot)
		all = append(all, c)
	}

	notModified := a.at(n.cache, a.fixed(), "detail=local")
	notModified.status, notModified.length = http.StatusNotModified, 0
	notModified.fields = [][2]string{{"If-None-Match", `"33a64df551425fcc55e4d42a148795d9f25f89d4"`}}
	hit("304", filesName+" 304", notModified, until(local))
	fileNotModified := a.at(n.files, a.file())
	fileNotModified.status, fileNotModified.length = http.StatusNotModified, 0
	fileNotModified.fields = [][2]string{{"If-Modified-Since", "Fri, 01 Jan 2100 00:00:00 GMT"}}
	all = append(all, a.rival(filesName+" 304", "", fileNotModified))

	part := [][2]string{{"Range", fmt.Sprintf("bytes=%d-%d", a.size.bytes/4, a.size.bytes/2-1)}}
	partial := a.at(n.cache, a.fixed(), "detail=local")
	partial.status, partial.length, partial.fields = http.StatusPartialContent, int64(a.size.bytes/4), part
	hit("range, a quarter", filesName+" range", partial, until(local))
	filePart := a.at(n.files, a.file())
	filePart.status, filePart.length, filePart.fields = http.StatusPartialContent, int64(a.size.bytes/4), part
	all = append(all, a.rival(filesName+" range", "", filePart))

	encoded := a.at(n.encoded, a.fixed(), "detail=local")
	encoded.length = -1
	hit("hit, compressed once", localName, encoded, until(encoded))
	return all
}

// laneCase names hits at a site with the lane, which does not look at HTTP/2.
func (a *arena) laneCase() string {
	if a.http2 {
		return localName + behindLane
	}
	return laneName
}

// remoteHits are brought from another node.
func (a *arena) remoteHits() (all []*contestant) {
	for _, p := range []struct {
		name string
		pair *pair
	}{{remoteName, a.plain}, {remoteSecretName, a.secret}} {
		if p.pair == nil {
			continue
		}
		remote := a.at(p.pair.asker.cache, func(n int64) string { return p.pair.paths[n%int64(len(p.pair.paths))] }, "detail=peer", "detail=hot")
		remote.share = a.b.remoteShare // groupcache keeps one in ten for a while
		c := a.contestant(p.name, localName, remote, p.pair.owner.Process, p.pair.asker.Process)
		c.load.connections = a.b.pairConnections(a.size)
		all = append(all, c)
	}
	return all
}

// fetches go to the upstream.
func (a *arena) fetches() []*contestant {
	n := a.alone
	encode := a.at(n.encode, a.fixed())
	encode.length = -1
	// What is passed through is compared with the very same requests.
	private := func(s site, claims ...string) *target {
		return a.at(s, always(privatePrefix+a.size.path("/fixed")), claims...)
	}
	noStore := func(s site, claims ...string) *target {
		t := a.at(s, a.fixed(), claims...)
		t.fields = [][2]string{{"Cache-Control", "no-store"}}
		return t
	}
	const proxyPrivate, proxyNoStore = proxyName + ", private", proxyName + ", no-store"
	return []*contestant{
		a.rival(proxyName, "", a.at(n.proxy, a.fixed())),
		a.rival(proxyName+" and encode", proxyName, encode),
		a.contestant(missName, proxyName, a.at(n.cache, a.newPath, "fwd=uri-miss; fwd-status=200; stored"), n.Process),
		a.rival(proxyPrivate, "", private(n.proxy)),
		a.contestant(privateName, proxyPrivate, private(n.cache, "fwd=uri-miss; fwd-status=200; detail=private"), n.Process),
		a.rival(proxyNoStore, "", noStore(n.proxy)),
		a.contestant(noStoreName, proxyNoStore, noStore(n.cache, "fwd=bypass"), n.Process),
		// What the lane does not serve is compared with the same without it.
		a.contestant(missName+behindLane, missName, a.at(n.lane, a.newPath, "fwd=uri-miss; fwd-status=200; stored"), n.Process),
		a.contestant(privateName+behindLane, privateName, private(n.lane, "fwd=uri-miss; fwd-status=200; detail=private"), n.Process),
		a.contestant(noStoreName+behindLane, noStoreName, noStore(n.lane, "fwd=bypass"), n.Process),
	}
}

// streams are what has no part in the cache, at a site without the lane and with it.
func (a *arena) streams() (all []*contestant) {
	if a.http2 {
		return nil
	}
	for _, behind := range []string{"", behindLane} {
		at := a.alone.cache
		if behind != "" {
			at = a.alone.lane
		}
		upload := a.at(at, a.newPath, "fwd=method")
		upload.upload = make([]byte, a.size.bytes)
		message := a.at(at, always(socketPath))
		message.socket = true
		for i, t := range []*target{upload, message} {
			name, against := [...]string{uploadName, socketName}[i], ""
			if behind != "" {
				name, against = name+behind, name
			}
			all = append(all, a.contestant(name, against, t, a.alone.Process))
		}
	}
	return all
}

// hitsOverTLS are the hits of which TLS is a part.
func (a *arena) hitsOverTLS() []*contestant {
	n := a.alone
	all := []*contestant{a.rival(ceilingName, "", a.at(n.ceilingTLS, a.fixed()))}
	local := a.at(n.cacheTLS, a.fixed(), "detail=local")
	c := a.contestant(localName, ceilingName, local, n.Process)
	c.prepare = until(local)
	all = append(all, c)
	lane := a.at(n.laneTLS, a.fixed(), "detail=local")
	c = a.contestant(a.laneCase(), localName, lane, n.Process)
	c.prepare, c.closely = until(lane), a.http2
	return append(all, c)
}

// rivalHits are served from other caches' memory.
func (a *arena) rivalHits() (all []*contestant) {
	for _, r := range a.rivals {
		t := &target{addr: r.addr, http2: a.http2, tls: a.tls, path: a.fixed(), status: http.StatusOK, length: int64(a.size.bytes), claims: []string{"HIT"}}
		switch {
		case a.tls && r.secure == "", a.http2 && !a.tls:
			continue // it does not speak that
		case a.tls:
			t.addr = r.secure
		}
		against := laneName
		if a.http2 {
			against = localName
		}
		c := a.contestant(r.Name+" hit", against, t, r.Process)
		c.rival, c.prepare, c.closely = true, until(t), true
		all = append(all, c)
	}
	return all
}

// selected leaves the contestants that the flags ask for, and what these are
// compared with.
func (b *bench) selected(all []*contestant) []*contestant {
	wanted := make(map[string]bool)
	for _, c := range slices.Backward(all) { // twice, since what one is compared with is compared too
		wanted[c.name] = wanted[c.name] || b.match.MatchString(c.name)
	}
	for range 2 {
		for _, c := range all {
			if wanted[c.name] {
				wanted[c.against] = true
			}
		}
	}
	return slices.DeleteFunc(all, func(c *contestant) bool { return !wanted[c.name] })
}

// contest has the contestants take turns.
func (b *bench) contest(ctx context.Context, all []*contestant) error {
	return b.takeTurns(ctx, all, b.rounds)
}

func (b *bench) takeTurns(ctx context.Context, all []*contestant, rounds int) error {
	for round := range rounds {
		for i := range all {
			c := all[(i+round)%len(all)] // not always after the same one
			s, err := b.turn(ctx, c)
			if err != nil && ctx.Err() == nil {
				// On a machine that is busy with other things, a node may be taken
				// for dead for a moment. That does not happen twice in a row.
				progress("%s: %v; once more", c.name, err)
				s, err = b.turn(ctx, c)
			}
			if err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
			c.samples = append(c.samples, s)
		}
	}
	return nil
}

// compare measures each contestant side by side with what it is compared with: what a
// machine does for a request varies by a third within a minute, but hardly within a
// second.
func (b *bench) compare(ctx context.Context, all []*contestant) error {
	byName := make(map[string]*contestant)
	measure := make(map[*contestant]bool) // beside no other
	for _, c := range all {
		byName[c.name], measure[c] = c, true
	}
	for _, c := range all {
		if other := byName[c.against]; other != nil {
			measure[c], measure[other] = false, false
		}
	}
	for round := range b.rounds * closer {
		for i := range all {
			c := all[(i+round)%len(all)]
			if !c.closely && round%closer != 0 {
				continue
			}
			other := byName[c.against]
			group := []*contestant{c, other}
			if other == nil {
				if !measure[c] {
					continue
				}
				group = group[:1]
			}
			if round%2 == 1 { // not always before the other
				slices.Reverse(group)
			}
			if err := b.takeTurns(ctx, group, 1); err != nil {
				return err
			}
			if other != nil {
				c.pairs = append(c.pairs, pairOf{c.samples[len(c.samples)-1], other.samples[len(other.samples)-1]})
			}
		}
	}
	return nil
}

func (b *bench) turn(ctx context.Context, c *contestant) (sample, error) {
	if c.prepare != nil {
		if err := c.prepare(ctx); err != nil {
			return sample{}, err
		}
	}
	return c.load.run(ctx, b.round())
}

// eachArena calls f with the servers for every selected size and version of
// HTTP. Each size has nodes of its own: what one leaves in a cache is the others'
// work, because the collector of garbage has to mark it.
func (b *bench) eachArena(ctx context.Context, sizes []size, f func(*arena) error) error {
	rivals, err := b.lab.startRivals(ctx)
	if err != nil {
		return err
	}
	for _, r := range rivals {
		defer r.End()
	}
	secret := newSecret()
	for _, s := range sizes {
		a := &arena{b: b, size: s, rivals: rivals}
		if err := a.with(ctx, secret, f); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	return nil
}

// with calls f with the servers for every version of HTTP.
func (a *arena) with(ctx context.Context, secret string, f func(*arena) error) error {
	b := a.b
	alone, err := b.lab.startCluster(ctx, cluster{sizes: []string{"512MiB"}, compare: true})
	if err != nil {
		return err
	}
	defer endAll(alone)
	a.alone = alone[0]
	if needed := b.match; needed.MatchString("hot hit") || needed.MatchString(remoteName) || needed.MatchString(remoteSecretName) {
		if a.plain, err = b.startPair(ctx, a.size, ""); err != nil {
			return err
		}
		defer a.plain.end()
		if a.secret, err = b.startPair(ctx, a.size, secret); err != nil {
			return err
		}
		defer a.secret.end()
	}
	for _, v := range strings.Split(b.http, ",") {
		version, secure := strings.CutSuffix(v, "s")
		a.http2, a.tls = version == "2", secure
		if err := f(a); err != nil {
			return fmt.Errorf("HTTP/%s: %w", v, err)
		}
	}
	return nil
}

// throughput measures how many requests a second go, and what each costs.
func (b *bench) throughput(ctx context.Context) error {
	b.report.printf("\n## Throughput\n\n")
	b.report.printf("As many requests as go. *Ceiling handler* is the least that a handler of Caddy can do: it sets twelve header fields and writes a []byte.\n")
	b.report.printf("With Date and Server its clients get 14, as those of a hit do, to which the upstream gave 11, and which has Via, Age and Cache-Status besides: each\n")
	b.report.printf("is a cost to net/http. *Local hit, 17 fields* is one of a response that came with 14.\n")
	b.report.printf("A *remote hit* is brought from the node that owns it, each time; its CPU is that of both nodes.\n")
	return b.eachArena(ctx, b.selectedSizes(), func(a *arena) error {
		all := b.selected(a.contestants())
		progress("throughput, %s, HTTP/%s: %d cases", a.size.name, a.version(), len(all))
		if err := b.compare(ctx, all); err != nil {
			return err
		}
		a.standings(all)
		return a.takeProfiles(ctx, all)
	})
}

func (a *arena) version() string {
	version := "1.1"
	if a.http2 {
		version = "2"
	}
	if a.tls {
		version += " over TLS"
	}
	return version
}

// fileName is the size and the version in the names of files.
func (a *arena) fileName() string {
	return strings.ToLower(a.size.name) + "-http" + a.version()[:1] + map[bool]string{true: "-tls"}[a.tls]
}

func (a *arena) standings(all []*contestant) {
	b := a.b
	b.report.printf("\n### %s, HTTP/%s\n", a.size.name, a.version())
	rows := [][]string{{"", "requests/s", "CPU µs", "against", "requests/s ×", "CPU ×", "generator µs"}}
	var cost, speed []bar
	for _, c := range all {
		var perSecond []float64
		var cpu, generator []time.Duration
		for _, s := range c.samples {
			perSecond, cpu, generator = append(perSecond, s.perSecond), append(cpu, s.cpu), append(generator, s.generator)
		}
		row := []string{c.name, thousands(median(perSecond)), micros(median(cpu)), "", "", "", micros(median(generator))}
		if c.load.connections != b.connections {
			row[0] += fmt.Sprintf(" (%d connections)", c.load.connections)
		}
		if len(c.pairs) > 0 {
			faster, dearer := ratios(c.pairs)
			row[3], row[4], row[5] = c.against, faster.String(), dearer.String()
		}
		rows = append(rows, row)
		bar := func(value float64, label string) bar {
			return bar{name: c.name, value: value, label: label, rival: c.rival}
		}
		cost = append(cost, bar(float64(median(cpu))/1e3, micros(median(cpu))+" µs"))
		speed = append(speed, bar(median(perSecond), thousands(median(perSecond))+"/s"))
	}
	b.report.table(rows)
	name := a.fileName()
	b.report.plot("cpu-"+name, "CPU per request, "+a.size.name, bars(fmt.Sprintf("CPU µs per request, %s, HTTP/%s", a.size.name, a.version()), cost))
	b.report.plot("rate-"+name, "requests a second, "+a.size.name, bars(fmt.Sprintf("Requests a second, %s, HTTP/%s", a.size.name, a.version()), speed))
}

// ratios are of the requests a second that one had to those of the other, and of what
// one costs, in each pair.
func ratios(pairs []pairOf) (faster, dearer ratio) {
	for _, p := range pairs {
		faster = append(faster, p.own.perSecond/p.other.perSecond)
		dearer = append(dearer, float64(p.own.cpu)/float64(p.other.cpu))
	}
	return faster, dearer
}

// A ratio is that of each round.
type ratio []float64

func (r ratio) String() string {
	return fmt.Sprintf("%.2f (%.2f–%.2f)", median(r), quantile(r, 0.25), quantile(r, 0.75))
}

// takeProfiles takes CPU profiles of all servers of each case.
func (a *arena) takeProfiles(ctx context.Context, all []*contestant) error {
	dir := a.b.profiles
	if dir == "" {
		return nil
	}
	admins := map[*harness.Process]string{a.alone.Process: a.alone.Admin}
	for _, p := range []*pair{a.plain, a.secret} {
		if p != nil {
			admins[p.owner.Process], admins[p.asker.Process] = p.owner.Admin, p.asker.Admin
		}
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, c := range all {
		long := *c.load
		if c.prepare != nil {
			if err := c.prepare(ctx); err != nil {
				return err
			}
		}
		var taken sync.WaitGroup
		errs := make(chan error, len(long.servers))
		for i, p := range long.servers {
			if admins[p] == "" {
				continue
			}
			name := fmt.Sprintf("%s-%s-%d.pprof", strings.NewReplacer(" ", "-", ",", "").Replace(c.name), a.fileName(), i)
			taken.Go(func() {
				errs <- download("http://"+admins[p]+"/debug/pprof/profile?seconds=10", filepath.Join(dir, name))
			})
		}
		_, err := long.run(ctx, 11*time.Second)
		taken.Wait()
		close(errs)
		for e := range errs {
			if err == nil {
				err = e
			}
		}
		if err != nil {
			return fmt.Errorf("profile of %s: %w", c.name, err)
		}
	}
	return nil
}

func download(url, file string) error {
	resp, err := http.Get(url)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(f, resp.Body)
	return err
}
