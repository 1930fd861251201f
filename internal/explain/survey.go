package explain

import (
	"context"
	"encoding/hex"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/caddy-groupcache/caddy-groupcache/internal/guard"
	"github.com/caddy-groupcache/caddy-groupcache/internal/node"
	"github.com/caddy-groupcache/caddy-groupcache/internal/peer"
	"github.com/caddy-groupcache/caddy-groupcache/internal/rfc9111"
	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
	"github.com/caddy-groupcache/caddy-groupcache/internal/storing"
)

const (
	// patience is how long another node may take to say what it knows.
	patience = time.Second
	// maxPurges bounds the purges that are told of.
	maxPurges = 10
)

// survey asks the nodes of the ring what they know of a lookup's key: this one comes
// first, then the owner, and the last are those that are too many to be asked.
func survey(ctx context.Context, n *node.Node, q *node.Lookup, owner peer.Node) []Knowledge {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, peer.ErrTimeout)
	defer cancel()
	query := inspection(q)
	others := n.Others()
	slices.SortStableFunc(others, func(a, b peer.Node) int {
		switch {
		case a.Name == owner.Name:
			return -1
		case b.Name == owner.Name:
			return 1
		}
		return 0
	})
	all := make([]Knowledge, 1+len(others))
	all[0] = inspect(n, q)
	var asked sync.WaitGroup
	for i, to := range others {
		if i >= peer.MaxAsked {
			all[1+i] = Knowledge{Name: to.Name, Error: peer.ErrNotAsked.Error()}
			continue
		}
		guard.GoWait(&asked, func() {
			var know Knowledge
			if err := n.Client.Inspect(ctx, to, query, &know); err != nil {
				know = Knowledge{failure: err, Error: err.Error()}
			}
			know.Name, know.Owner = to.Name, to.Name == owner.Name
			all[1+i] = know
		})
	}
	asked.Wait()
	return all
}

// inspection returns the query about a lookup's key, with all fields of its request that
// fit.
func inspection(q *node.Lookup) *peer.Query {
	var names []string
	for name := range q.Header {
		switch {
		case len(names) == store.MaxVaryNames, name == "Authorization", name == "Cookie":
		case q.Undirected && (name == "Cache-Control" || name == "Pragma"):
		default:
			names = append(names, name)
		}
	}
	query := q.Query(names)
	query.Credentials = q.Credentials
	return &query
}

// Inspect returns what a node knows of a key, for another node.
func Inspect(n *node.Node, query *peer.Query) Knowledge {
	q := &node.Lookup{
		Namespace: &store.Namespace{Name: query.Group}, Key: query.Key, Header: query.Fields,
		Request: rfc9111.Request{Directives: rfc9111.ParseRequest(query.Fields), Credentials: query.Credentials},
	}
	return inspect(n, q)
}

// inspect returns what a node knows of a lookup's key.
func inspect(n *node.Node, q *node.Lookup) Knowledge {
	now := time.Now()
	_, self := n.Ring.Load().Owner(q.Key)
	know := Knowledge{Name: n.Name, Owner: self, Fetching: n.Fills.Has(q.Key) || n.Asks.Has(q.Key)}
	in := n.Store.Inspect(q.Key, q.Header, now)
	know.Vary = in.Vary
	for _, v := range in.Variants {
		e, f := v.Entry, v.Entry.Fresh
		use, why := rfc9111.Reuse(&q.Request, &f, rfc9111.Stored, now)
		etag, modified := rfc9111.Validators(e.Header())
		one := Variant{
			Matches: v.Matches, Use: use.String(), Reason: why.String(), Status: e.Status, Size: e.Size,
			AgeSeconds: seconds(f.Age(now)), TTLSeconds: seconds(f.TTL(now)), LifetimeSeconds: seconds(f.Lifetime), Guessed: f.Heuristic,
			StaleWhileRevalidateSeconds: seconds(f.StaleWhileRevalidate), StaleIfErrorSeconds: seconds(f.StaleIfError),
			NoCache: f.NoCache, MustRevalidate: f.MustRevalidate, SharedAuth: f.SharedAuth,
			StaleForbiddenBy: rfc9111.StaleForbiddenBy(&f, e.Header(), nil),
			ETag:             etag, LastModified: modified, Vary: e.Vary(), Tags: e.Tags(), Rule: storing.RuleOf(e.Groups()),
			Groups: slices.DeleteFunc(slices.Clone(e.Groups()), func(group string) bool { return strings.HasPrefix(group, "\x00") }), // our own
		}
		if by := e.VariantKey(); by.Codings != "" && by.Codings != store.NotNegotiable && slices.Contains(by.Vary, "Accept-Encoding") {
			one.For = append(one.For, "Accept-Encoding: "+by.Codings)
		}
		if by := e.VariantKey(); by.Languages != "" && by.Languages != store.NotNegotiable && slices.Contains(by.Vary, "Accept-Language") {
			one.For = append(one.For, "Accept-Language: "+by.Languages)
		}
		switch {
		case v.Here && self:
			one.Body = "main"
		case v.Here:
			one.Body = "hot"
		}
		know.Variants = append(know.Variants, one)
	}
	if in.Uncacheable != rfc9111.None {
		know.Uncacheable = &Uncacheable{Reason: in.Uncacheable.String(), Seconds: seconds(in.Until.Sub(now))}
	}
	if r, known := n.Rejections.Of(q.Key); known {
		know.NotStored = &NotStored{Reason: r.Why.String(), Status: r.Status, Field: r.Field, Value: r.Value, SecondsAgo: seconds(now.Sub(r.At))}
	}
	return know
}

func seconds(d time.Duration) int64 { return int64(d / time.Second) }

// purgesOf returns the latest purges that this node remembers and that name a
// response.
func purgesOf(n *node.Node, q *node.Lookup, u string, tags []string) []Purge {
	all, _ := n.Purger.Log.All()
	is := new(store.Entry)
	is.SetLabels(u, tags, nil)
	var told []Purge
	for _, p := range slices.Backward(all) {
		about := p.About(q.Namespace.Name, q.Key, is)
		if len(about) == 0 {
			continue
		}
		s := about[0] // a URL comes before the keys that accompany it
		one := Purge{ID: p.ID.String(), Kind: s.Kind.String(), Value: s.Value, Soft: p.Soft, SecondsAgo: seconds(time.Since(p.At))}
		if s.Kind == store.OfKey {
			one.Value = hex.EncodeToString([]byte(s.Value))
		}
		if told = append(told, one); len(told) == maxPurges {
			break
		}
	}
	return told
}
