package caddygroupcache_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// Whether a response may answer a request now is one decision (RFC 9111 §4), and each
// way on which a client gets a response that was not fetched for it goes through that.
// The tests here read the source: whoever adds a way has to add it to the list, with
// the place where the decision was taken.

// decision is the function of internal/rfc9111 that decides.
const decision = "Reuse"

// decides are the functions that ask for the decision, and for what.
var decides = map[string]string{
	"Node.Find":                "what is stored here: Lookup.CanServe and Lookup.answers go by it",
	"Node.Reuse":               "what another request, or the owner, is bringing",
	"Lookup.InPlaceOfUpstream": "what is stored, when the upstream has just failed or is slow: Node.Find, Node.Reuse and Lookup.MayStandIn go by it",
	"staleResponse.standsIn":   "what is stored, when the upstream fails",
	"inspect":                  "nothing: explain tells what would be decided",
}

// Not every function that hands over a response needs a decision of its own.
const (
	byCaller = "its callers have decided"
	forOwner = "the asker is another node, which decides for its client"
	ownFetch = "the response was fetched for this very request"
)

// doors are the calls by which a response that is stored, or is coming in, leaves: its
// header, its body, a 304 in its place, the same to another node. The value is the
// number of arguments that tells the call apart, or -1.
var doors = map[string]int{
	"WriteHeader": 2, // of store.Entry
	"hitHeader":   -1, "newHeader": -1, "AnswerNotModified": -1,
	"Body": 3, "NewBody": -1, "ServePart": -1, "CopyFill": -1,
	"deliver": -1, "deliverWhole": -1, "deliverParts": -1, "deliverLanded": -1, "deliverPart": -1,
	"Hit": 3, "Follow": 1, // of peer.Answer
}

// An exit is a function with calls of doors, in alphabetical order.
type exit struct{ doors, decided string }

var exits = map[string]exit{
	"laneSite.Answer":             {"Body", "Node.Find"},
	"laneSite.sendThrough":        {"hitHeader", byCaller},
	"Handler.serve":               {"deliverWhole", "Node.Find"},
	"exchange.hit":                {"deliver", "Node.Find"},
	"storedResponse.deliver":      {"AnswerNotModified deliverParts deliverWhole hitHeader newHeader", byCaller},
	"storedResponse.deliverWhole": {"AnswerNotModified Body hitHeader", byCaller},
	"storedResponse.deliverParts": {"NewBody ServePart", byCaller},
	"storedResponse.hitHeader":    {"WriteHeader", byCaller},
	"storedResponse.fail":         {"WriteHeader", byCaller},
	"outcome.newHeader":           {"AnswerNotModified WriteHeader", byCaller},
	"exchange.follow":             {"AnswerNotModified CopyFill deliverLanded hitHeader newHeader", "Node.Reuse"},
	"exchange.deliverLanded":      {"deliver", byCaller},
	"exchange.join":               {"deliverPart", ownFetch},
	"firstChunk.deliverPart":      {"deliverParts newHeader", ownFetch},
	"fetch.after":                 {"deliver", "staleResponse.standsIn"}, // or the upstream, whose 304 answers this very request
	"recorder.sendFilling":        {"AnswerNotModified", ownFetch},
	"recorder.passHeader":         {"AnswerNotModified", ownFetch},
	"recorder.startPump":          {"CopyFill", ownFetch},
	"recorder.finishClient":       {"CopyFill", ownFetch},
	"Owner.hit":                   {"Hit", byCaller},
	"Owner.grantLease":            {"Follow", forOwner},
}

// TestEachWayOutIsDecided compares the functions that hand over responses with the list.
func TestEachWayOutIsDecided(t *testing.T) {
	found := callers(t, func(call *ast.CallExpr) string {
		name := calledName(call)
		if args, is := doors[name]; is && (args < 0 || args == len(call.Args)) {
			return name
		}
		return ""
	})
	for f, calls := range found {
		switch e, listed := exits[f]; {
		case !listed:
			t.Errorf("%s hands over a response (%s): list it, with the place where it is decided that this response may answer this request", f, calls)
		case e.doors != calls:
			t.Errorf("%s hands over responses by %s, listed are %s: is what was decided still decided?", f, calls, e.doors)
		}
	}
	for f, e := range exits {
		if found[f] == "" {
			t.Errorf("%s hands over nothing any more: take it off the list", f)
		}
		if _, asks := decides[e.decided]; !asks && e.decided != byCaller && e.decided != forOwner && e.decided != ownFetch {
			t.Errorf("%s: %s does not ask for the decision", f, e.decided)
		}
	}
}

// TestOneDecision compares the functions that ask for the decision with the list.
func TestOneDecision(t *testing.T) {
	found := callers(t, func(call *ast.CallExpr) string {
		f, ok := call.Fun.(*ast.SelectorExpr)
		if !ok || f.Sel.Name != decision {
			return ""
		}
		if pkg, ok := f.X.(*ast.Ident); ok && pkg.Name == "rfc9111" {
			return decision
		}
		return ""
	})
	for f := range found {
		if _, listed := decides[f]; !listed {
			t.Errorf("%s asks for the decision, and is not listed", f)
		}
	}
	for f := range decides {
		if found[f] == "" {
			t.Errorf("%s does not ask for the decision any more", f)
		}
	}
}

// callers returns the product's functions that have calls which pick names, with these
// names. What a function literal calls, the function around it does.
func callers(t *testing.T, pick func(*ast.CallExpr) string) map[string]string {
	t.Helper()
	found := make(map[string]map[string]bool)
	for _, name := range repoFiles(t, func(name string) bool {
		return slices.Contains([]string{".", "internal/node", "internal/explain"}, path.Dir(name)) && strings.HasSuffix(name, ".go") && !strings.HasSuffix(name, "_test.go")
	}) {
		file, err := parser.ParseFile(token.NewFileSet(), filepath.FromSlash(name), nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range file.Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok || f.Body == nil {
				continue
			}
			ast.Inspect(f.Body, func(n ast.Node) bool {
				if call, ok := n.(*ast.CallExpr); ok {
					if what := pick(call); what != "" {
						if found[funcName(f)] == nil {
							found[funcName(f)] = make(map[string]bool)
						}
						found[funcName(f)][what] = true
					}
				}
				return true
			})
		}
	}
	all := make(map[string]string)
	for f, calls := range found {
		all[f] = strings.Join(slices.Sorted(maps.Keys(calls)), " ")
	}
	return all
}
