package explain

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/caddy-groupcache/caddy-groupcache/internal/rfc9111"
)

// reasonWords says of each reason what it means, as the end of a sentence that
// begins with "because", and what would change it.
var reasonWords = map[rfc9111.Reason]struct{ because, change string }{
	rfc9111.Method:           {"only responses to GET are stored, and only GET and HEAD are served from the cache", "ask with GET"},
	rfc9111.Upgrade:          {"the client asks for another protocol", "nothing: WebSockets and the like are never cached"},
	rfc9111.RequestBody:      {"the request has a body, which the cache key does not cover", "send the GET without a body"},
	rfc9111.Connection:       {"the request's Connection names fields, which the upstream will not get", "send no field names in Connection"},
	rfc9111.Loop:             {"its CDN-Loop says that it comes from a cache of this group, or can't be read", "another group for one of the two handlers, if both shall store the response"},
	rfc9111.RequestNoStore:   {"the client sent no-store", "request_directives ignore, if clients shall have no say"},
	rfc9111.RequestNoCache:   {"the client wants a validated answer", "request_directives ignore, if clients shall have no say"},
	rfc9111.Authorization:    {"the request has credentials, and the response does not allow sharing", "send public, s-maxage or must-revalidate in the response's Cache-Control, or set authorization ignore if responses do not depend on who asks"},
	rfc9111.OnlyIfCached:     {"the client wants nothing fetched, and nothing is stored", "ask once without only-if-cached"},
	rfc9111.BadRequestTarget: {"no key can be made of the host, the target and the fields that override them", "a host, a shorter target, or fewer such fields"},
	rfc9111.Status:           {"responses of this status are not stored", "a ttl that names the status, or Cache-Control with max-age in the response"},
	rfc9111.NoStore:          {"the response says no-store", "leave no-store out of the response, or send Groupcache-Cache-Control to speak to this cache only"},
	rfc9111.Private:          {"the response says private", "leave private out of the response, or send Groupcache-Cache-Control to speak to this cache only"},
	rfc9111.SetCookie:        {"the response sets a cookie, which would be handed to every client", "remove Set-Cookie before the cache (header_down -Set-Cookie), name it in Cache-Control: private=\"Set-Cookie\", or set set_cookie store"},
	rfc9111.ClearSiteData:    {"the response clears what a browser keeps of the site, which would log every client out", "remove Clear-Site-Data before the cache (header_down -Clear-Site-Data), name it in Cache-Control: private=\"Clear-Site-Data\", or set set_cookie store"},
	rfc9111.VaryStar:         {"the response varies by what no request can be known to match", "name the request fields in Vary instead of *"},
	rfc9111.NoFreshness:      {"the response states no freshness and has nothing to validate it with", "let the upstream send Cache-Control with max-age or s-maxage, or set a ttl; what the header directive sets does not count, because it stands before the cache"},
	rfc9111.Expired:          {"the response was stale when it came and has nothing to validate it with", "a longer max-age, or an ETag"},
	rfc9111.Partial:          {"it is a part of a response", "answer with the whole: the cache makes parts of it"},
	rfc9111.EventStream:      {"it is a stream of events, which belongs to one client", "nothing: such streams are never cached"},
	rfc9111.Precondition:     {"the request has a condition that only the upstream can evaluate", "ask without If-Match and If-Unmodified-Since"},
	rfc9111.TooLarge:         {"it is longer than max_body_size", "a larger max_body_size"},
	rfc9111.PartsOnly:        {"it is longer than half of what all nodes keep, so only parts of it are stored", "a larger cache_size, or more nodes"},
	rfc9111.Incomplete:       {"a part of the large body that is stored was evicted, and could not be got again", "a larger cache_size, or an upstream that answers with parts under a strong entity tag"},
	rfc9111.MustValidate:     {"the response to the request that it waited for needs validation for each use", "Cache-Control with max-age or s-maxage in the response"},
	rfc9111.Truncated:        {"it was shorter or longer than its Content-Length, or cut off", "an upstream that sends what it announces"},
	rfc9111.HeaderTooBig:     {"it has too many or too long header fields, tags or Vary names", "fewer of them"},
	rfc9111.Trailers:         {"it ends with trailer fields, which are not stored", "send no trailers"},
	rfc9111.StrayNotModified: {"it is a 304 that fits nothing stored", "answer unconditional requests with the whole"},
	rfc9111.Aborted:          {"the upstream or a handler broke off", "look at the upstream's errors"},
	rfc9111.FillTimeout:      {"it took longer than fill_timeout", "a longer fill_timeout, or a faster upstream"},
	rfc9111.Memory:           {"there was no room for another response on its way", "a larger cache_size"},
	rfc9111.LeaderLost:       {"the node that was fetching it is gone", "nothing: the next request fetches it"},
	rfc9111.Abandoned:        {"its client went away before it came, and nobody else waited for it", "nothing: the next request fetches it"},
	rfc9111.VaryMismatch:     {"it is stored for other values of the fields in Vary", "nothing, or fewer fields in Vary"},
	rfc9111.HitForMiss:       {"such a response was not stored a moment ago", "see why that was"},
	rfc9111.Superseded:       {"a newer response or a purge came first", "nothing: the next request fetches it"},
	rfc9111.PeerTimeout:      {"the node that owns the key is silent", "look after that node; a longer peer_timeout waits for it"},
	rfc9111.PeerError:        {"the node that owns the key refused, broke off or made no sense", "look after that node; all nodes need the same secret and protocol"},
	rfc9111.PeerDown:         {"the node that owns the key is known not to answer", "look after that node"},
	rfc9111.RequestStatus:    {"a status like this answers one request only", "a ttl that names the status, for those of 400, 406, 408, 409, 411, 413, 415, 422 and 429, where the key has the whole URL"},
	rfc9111.CatchingUp:       {"this node was away and has not heard yet what was purged meanwhile", "nothing: that takes a second or so"},
	rfc9111.InFront:          {"a handler in front of the cache, such as header, has said no-store, private or no-cache, or has set a field that a handler behind it deletes", "header Groupcache-Cache-Control max-age=1 beside it, which speaks to this cache only and lifts that, or setting the field behind the cache"},
	rfc9111.HandledError:     {"it was made by handle_response in place of an error of the upstream, and has a status that is none", "the error's status for the page, as in file_server { status 500 }"},
	rfc9111.NotRouted:        {"a matcher of the route, or of the directive, keeps the request from the cache", "the matcher; what it says of clients' addresses is not asked here"},
	rfc9111.ErrorRoute:       {"an error has led the request to handle_errors, whose response is not that of its URL", "nothing: error pages are made anew each time"},
	rfc9111.AuthBehind:       {"the request has to pass an authentication that stands behind the cache", "the authentication in front of groupcache: both in the same handle, or in this order in a route"},
	rfc9111.SecondUpstream:   {"a reverse_proxy in handle_response of another one has answered, and the first upstream has decided whether the client may have it", "groupcache in handle_response, in front of the second reverse_proxy: the first upstream is asked for each request then"},
	rfc9111.Rule:             {"a response block of the config says no_store", "the block, or its matcher"},
	rfc9111.UpstreamFailed:   {"the upstream failed, and what is stored may stand in", "look at the upstream's errors; it is asked again after a second"},
	rfc9111.VaryOnTheWay:     {"the response varies by a field that Caddy sets for the upstream, so the client's own does not tell", "a key that has what the response depends on, such as {client_ip}, and Vary without that field"},
	rfc9111.NoVarySearch:     {"other parameters count by now than those that the key was made of", "nothing: the next request is stored"},
}

// words tells the decision in sentences.
func (g *Group) words(method string) []string {
	words := []string{g.verdictWords(method)}
	if g.Reason != "" {
		words = append(words, g.reasonSentence())
	}
	if g.Change != "" {
		words = append(words, "What would change it: "+g.Change+".")
	}
	for _, know := range g.Nodes {
		words = append(words, know.words()...)
	}
	for _, p := range g.Purges {
		words = append(words, p.words())
	}
	return words
}

func (g *Group) verdictWords(method string) string {
	switch g.Verdict {
	case Hit:
		return "It would be served from the cache, " + map[string]string{
			"local": "from this node's memory.", "hot": "from this node's copy.", "peer": "brought over from " + g.Owner + ".",
		}[g.Detail]
	case Stale:
		return "It would be served stale at once, and fetched anew in the background."
	case Revalidate:
		return "The upstream would be asked whether what is stored still holds."
	case Unavailable:
		return "It would be answered with 504, without asking the upstream."
	case Purges:
		return method + " purges, if who asks may."
	case Bypass:
		return "It would go to the upstream; the cache has no part in it."
	}
	if g.Reason == "" && len(g.Purges) > 0 && g.stored() == 0 {
		return "It would be fetched from the upstream: it has been purged, and nobody has asked for it since."
	}
	if g.Reason == "" && g.stored() == 0 {
		return "It would be fetched from the upstream: nobody has asked for it yet, or it had to make room."
	}
	return "It would be fetched from the upstream."
}

func (g *Group) reasonSentence() string {
	if g.Reason == staleReason {
		return "Reason: stale, because what is stored is stale (" + g.Cause + ")."
	}
	for why, w := range reasonWords {
		if why.String() != g.Reason {
			continue
		}
		s := "Reason: " + g.Reason + ", because " + w.because
		if g.Cause != "" {
			s += " (" + g.Cause + ")"
		}
		return s + "."
	}
	return "Reason: " + g.Reason + "."
}

func (know Knowledge) words() (words []string) {
	name := know.Name
	if know.Owner {
		name += " (owner)"
	}
	say := func(format string, args ...any) { words = append(words, name+": "+fmt.Sprintf(format, args...)) }
	if know.Error != "" {
		say("could not be asked: %s", know.Error)
	}
	if know.Fetching {
		say("it is on its way right now")
	}
	if len(know.Variants) > fewVariants {
		say("%s", summary(know.Variants))
	}
	for _, v := range know.Variants {
		if len(know.Variants) <= fewVariants || v.Matches {
			say("%s", v.words())
		}
	}
	if u := know.Uncacheable; u != nil {
		say("nobody waits for a shared response for another %s, because of %s", secondsWords(u.Seconds), u.Reason)
	}
	if s := know.NotStored; s != nil {
		say("a response%s was not stored %s ago: %s", statusWords(s.Status), secondsWords(s.SecondsAgo), s.Reason)
	}
	return words
}

// fewVariants are told one by one.
const fewVariants = 3

// maxValues bounds the values of a field that a summary has.
const maxValues = 8

// summary tells of many variants in one sentence, with the values that chose them as far
// as these are known: of most fields an entry has a digest only.
func summary(variants []Variant) string {
	fresh, oldest, newest := 0, variants[0].AgeSeconds, variants[0].AgeSeconds
	values := make(map[string]int)
	for _, v := range variants {
		if v.TTLSeconds > 0 && !v.NoCache {
			fresh++
		}
		oldest, newest = max(oldest, v.AgeSeconds), min(newest, v.AgeSeconds)
		for _, value := range v.For {
			values[value]++
		}
	}
	s := fmt.Sprintf("%d variants by %s, %d of them fresh, %s to %s old", len(variants), strings.Join(variants[0].Vary, ", "), fresh, secondsWords(newest), secondsWords(oldest))
	names := slices.SortedFunc(maps.Keys(values), func(a, b string) int {
		return cmp.Or(cmp.Compare(values[b], values[a]), strings.Compare(a, b))
	})
	for i, value := range names[:min(len(names), maxValues)] {
		s += map[bool]string{true: "; for ", false: ", "}[i == 0] + fmt.Sprintf("%s (%d)", value, values[value])
	}
	if len(names) > maxValues {
		s += fmt.Sprintf(" and %d other values", len(names)-maxValues)
	}
	return s
}

func statusWords(status int) string {
	if status == 0 {
		return ""
	}
	return fmt.Sprintf(" with status %d", status)
}

func (v Variant) words() string {
	s := fmt.Sprintf("status %d, %d bytes, %s old, ", v.Status, v.Size, secondsWords(v.AgeSeconds))
	switch {
	case v.NoCache:
		s += "to be validated each time"
	case v.TTLSeconds > 0:
		s += "fresh for another " + secondsWords(v.TTLSeconds)
	default:
		s += "stale for " + secondsWords(-v.TTLSeconds)
		if v.StaleForbiddenBy != "" {
			s += ", but " + v.StaleForbiddenBy + " forbids to serve it so"
		}
	}
	if v.Guessed {
		s += " (guessed from Last-Modified)"
	}
	if v.Body == "" {
		s += "; its body is not here"
	} else {
		s += "; its body is in the " + v.Body + " cache"
	}
	if v.Rule != "" {
		s += "; stored by response " + v.Rule
	}
	if len(v.Tags) > 0 {
		s += "; tags " + strings.Join(v.Tags, ", ")
	}
	if len(v.Vary) > 0 {
		s += "; varies by " + strings.Join(v.Vary, ", ")
		if !v.Matches {
			s += ", which this request has otherwise"
		}
	}
	return s
}

func (p Purge) words() string {
	soft := ""
	if p.Soft {
		soft = "softly "
	}
	value := p.Value
	if value != "" {
		value = " " + value
	}
	return fmt.Sprintf("It was %spurged %s ago by %s%s (purge %s).", soft, secondsWords(p.SecondsAgo), p.Kind, value, p.ID)
}

func secondsWords(s int64) string { return (time.Duration(s) * time.Second).String() }

// Print writes the explanation as a command shows it.
func (e *Explanation) Print(out io.Writer) error {
	fmt.Fprintf(out, "%s %s, at %s\n", e.Method, e.URL, e.Node)
	for _, g := range e.Groups {
		w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
		verdict := g.Verdict
		if why := g.Detail + g.Reason; why != "" { // never both
			verdict += ", " + why
		}
		fmt.Fprintf(w, "\ngroup\t%s\nverdict\t%s\n", g.Group, verdict)
		if g.Key != "" {
			fmt.Fprintf(w, "key\t%s\nhash\t%s\nowner\t%s\n", g.Key, g.Hash, g.Owner)
		}
		fmt.Fprintln(w)
		if err := w.Flush(); err != nil {
			return err
		}
		for _, sentence := range g.Words {
			fmt.Fprintln(out, sentence)
		}
	}
	return nil
}
