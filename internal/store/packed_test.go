package store

import (
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"
	"unsafe"
)

// Lengths are written in seven bits a byte.
var lengths = []int{0, 1, 127, 128, 129, 1<<14 - 1, 1 << 14, MaxHeaderBytes}

func TestFieldsComeOutAsTheyWentIn(t *testing.T) {
	var e Entry
	if e.NumFields() != 0 || e.Get("X") != "" || e.Lines("X") != nil || len(e.Header()) != 0 || e.URL() != "" || e.tail() != "" {
		t.Errorf("an entry of nothing has something: %+v", e)
	}
	for _, n := range lengths {
		value := strings.Repeat("v", n)
		fields := []Field{{"X-B", value}, {"X-C", "c"}, {"X-B", ""}, {"X-A", "a"}, {"X-B", "last"}}
		want := http.Header{"X-A": {"a"}, "X-B": {value, "", "last"}, "X-C": {"c"}}
		e.SetLabels("http://a.test/"+value, nil, nil)
		e.setTail("tail" + value)
		e.SetFields(fields)
		for range 2 { // what is set for itself leaves the rest alone
			if got := e.Header(); !reflect.DeepEqual(got, want) {
				t.Fatalf("%d bytes: got %.200q", n, got)
			}
			if e.URL() != "http://a.test/"+value || e.tail() != "tail"+value {
				t.Fatalf("%d bytes: URL %.100q, tail %.100q", n, e.URL(), e.tail())
			}
			if e.NumFields() != 5 || e.Get("X-B") != value || !slices.Equal(e.Lines("X-B"), want["X-B"]) || e.Get("X-D") != "" {
				t.Fatalf("%d bytes: %d fields, %.100q", n, e.NumFields(), e.Lines("X-B"))
			}
			e.SetLabels(e.URL(), nil, nil)
			e.setTail(e.tail())
		}
		if fields[0].Name != "X-B" {
			t.Error("the caller's list is in another order")
		}
	}
}

// Other handlers edit a response's header in place, and add to it.
func TestAHeaderIsItsResponsesOwn(t *testing.T) {
	e := entry(t, now, nil, "A", "1", "A", "2", "B", "3")
	h := http.Header{"B": {"before"}}
	room := e.WriteHeader(h, 2)
	if len(room) != 2 {
		t.Fatalf("room for %d", len(room))
	}
	h["A"][0] = "changed"
	h.Add("A", "more")
	room[0] = "room"
	if want := (http.Header{"A": {"changed", "2", "more"}, "B": {"3"}}); !reflect.DeepEqual(h, want) {
		t.Errorf("got %q, want %q", h, want)
	}
	if want := (http.Header{"A": {"1", "2"}, "B": {"3"}}); !reflect.DeepEqual(e.Header(), want) {
		t.Errorf("the entry has %q, want %q", e.Header(), want)
	}
}

func TestEntriesShareWhatTheyHaveInCommon(t *testing.T) {
	request := http.Header{"Accept-Encoding": {"gzip"}}
	one := entry(t, now, request, "Vary", "Accept-Encoding", "X-One-A", "1", "X-One-B", "1")
	two := entry(t, now, request, "X-One-B", "2", "X-One-A", "2", "Vary", "Accept-Encoding")
	if one.names != two.names || one.choice != two.choice || two.ownNames || two.ownChoice {
		t.Error("two entries with the same names and the same choice share neither")
	}
	other := entry(t, now, http.Header{"Accept-Encoding": {"br"}}, "Vary", "Accept-Encoding", "X-One-A", "1", "X-One-A", "1")
	if other.names == one.names || other.choice == one.choice || !slices.Equal(*other.names, []string{"Vary", "X-One-A", "X-One-A"}) || other.VariantKey().Codings != "br" {
		t.Errorf("names %q, choice %+v", *other.names, other.VariantKey())
	}
	many := make([]Field, MaxFields)
	for i := range many {
		many[i] = Field{strings.Repeat("X", 100), ""}
	}
	for range 2 {
		one.SetFields(many)
		if !one.ownNames {
			t.Error("names that are larger than most are shared")
		}
	}
}

// An entry keeps nothing alive of where its parts came from.
func TestAnEntryHasCopies(t *testing.T) {
	part := strings.Repeat("x", 100)[:10]
	e := entry(t, now, nil)
	e.SetLabels(part, []string{part}, []string{part})
	e.SetChoice(VariantKey{Vary: []string{part}, Codings: part})
	e.SetFields([]Field{{part, part}})
	for what, s := range map[string]string{
		"URL": e.URL(), "tag": e.Tags()[0], "group": e.Groups()[0], "name": (*e.names)[0], "value": e.Get(part),
		"codings": e.VariantKey().Codings, "selecting field": e.Vary()[0],
	} {
		if s != part || unsafe.StringData(s) == unsafe.StringData(part) {
			t.Errorf("%s: %q, the very same memory: %t", what, s, unsafe.StringData(s) == unsafe.StringData(part))
		}
	}
}
