package rfc9111

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
)

func TestTags(t *testing.T) {
	long, tooLong := strings.Repeat("x", MaxTagLength), strings.Repeat("x", MaxTagLength+1)
	var many []string
	for i := range MaxTags {
		many = append(many, strconv.Itoa(1000+i))
	}
	tests := []struct {
		name        string
		field, line string
		want        []string
		ok          bool
	}{
		{"none", "Surrogate-Key", "", nil, true},
		{"by white space", "Surrogate-Key", "b  a\tb ", []string{"a", "b"}, true},
		{"by commas", "Cache-Tag", "b, a ,,b", []string{"a", "b"}, true},
		{"by both in Surrogate-Key", "Surrogate-Key", "/books, /books/1", []string{"/books", "/books/1"}, true},
		{"by both in Cache-Tag", "Cache-Tag", "a c,b", []string{"a", "b", "c"}, true},
		{"by either", "X-Tags", "b, a c", []string{"a", "b", "c"}, true},
		{"not asked for", "X-Other", "a", nil, true},
		{"long", "Cache-Tag", "a," + long, []string{"a", long}, true},
		{"too long", "Cache-Tag", "a," + tooLong, nil, false},
		{"many", "Cache-Tag", strings.Join(many, ","), many, true},
		{"too many", "Cache-Tag", strings.Join(many, ",") + ",x", nil, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, ok := Tags(header(tt.field, tt.line), []string{"Surrogate-Key", "Cache-Tag", "X-Tags"})
			if !slices.Equal(got, tt.want) || ok != tt.ok {
				t.Errorf("got %q %v, want %q %v", got, ok, tt.want, tt.ok)
			}
		})
	}
	if got, _ := Tags(header("Surrogate-Key", "b", "Cache-Tag", "a", "Cache-Tag", "c"), []string{"Surrogate-Key", "Cache-Tag"}); !slices.Equal(got, []string{"a", "b", "c"}) {
		t.Errorf("several fields and lines: %q", got)
	}
}

func TestCacheGroups(t *testing.T) {
	list := func(n int) string { return strings.TrimSuffix(strings.Repeat(`"x", `, n), ", ") }
	tests := []struct {
		line string
		want []string
		ok   bool
	}{
		{"", nil, true},
		{`"b", "a", "b"`, []string{"a", "b"}, true},
		{`"a";x=1, b, 5, ("c")`, []string{"a"}, true},
		{`"with, comma"`, []string{"with, comma"}, true},
		{`"a", "b`, nil, true},
		{`a`, nil, true},
		{list(MaxTags), []string{"x"}, true},
		{list(MaxTags + 1), nil, false},
		{`"` + strings.Repeat("x", MaxTagLength+1) + `"`, nil, false},
	}
	for _, tt := range tests {
		if got, ok := CacheGroups(header("Cache-Groups", tt.line)); !slices.Equal(got, tt.want) || ok != tt.ok {
			t.Errorf("%.40s: got %q %v, want %q %v", tt.line, got, ok, tt.want, tt.ok)
		}
	}
	if got, ok := CacheGroups(nil); got != nil || !ok {
		t.Errorf("no field: %q %v", got, ok)
	}
	long := strings.Repeat("x", MaxTagLength)
	if got, ok := CacheGroups(header("Cache-Groups", `"`+long+`"`)); !slices.Equal(got, []string{long}) || !ok {
		t.Errorf("a long one: %.20q %v", got, ok)
	}
	if got := InvalidatedGroups(header("Cache-Group-Invalidation", `"a"`)); !slices.Equal(got, []string{"a"}) {
		t.Errorf("got %q", got)
	}
	if got := InvalidatedGroups(header("Cache-Groups", `"a"`)); got != nil {
		t.Errorf("got %q", got)
	}
}

// TestManyInvalidatedGroups: a change may be of more groups than one stored response has, and
// of some that none has.
func TestManyInvalidatedGroups(t *testing.T) {
	var names []string
	for i := range MaxInvalidated + 1 {
		names = append(names, fmt.Sprintf(`"g%05d"`, i))
	}
	for n, want := range map[int]int{MaxTags + 1: MaxTags + 1, MaxInvalidated: MaxInvalidated, MaxInvalidated + 1: MaxInvalidated} {
		got := InvalidatedGroups(header("Cache-Group-Invalidation", strings.Join(names[:n], ", ")))
		if len(got) != want || got[0] != "g00000" {
			t.Errorf("%d groups: %d are invalidated", n, len(got))
		}
	}
	if got := InvalidatedGroups(header("Cache-Group-Invalidation", `"`+strings.Repeat("x", MaxTagLength+1)+`", "a"`)); !slices.Equal(got, []string{"a"}) {
		t.Errorf("beside a name that is too long: %q", got)
	}
}

func FuzzTags(f *testing.F) {
	f.Add("a, b  c", `"x", "y";z`)
	f.Fuzz(func(t *testing.T, line, list string) {
		for _, name := range []string{"Surrogate-Key", "Cache-Tag", "X-Tags"} {
			tags, _ := Tags(header(name, line), []string{name})
			for _, tag := range tags {
				if tag == "" || tag != strings.Trim(tag, " \t") || !strings.Contains(line, tag) {
					t.Errorf("%s: %q gives %q", name, line, tag)
				}
			}
		}
		groups, ok := CacheGroups(header("Cache-Groups", list))
		if len(groups) > MaxTags || !ok && groups != nil || !slices.IsSorted(groups) {
			t.Errorf("%q gives %q", list, groups)
		}
	})
}
