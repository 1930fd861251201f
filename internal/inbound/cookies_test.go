package inbound

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
)

func TestCookies(t *testing.T) {
	for name, test := range map[string]struct {
		cookies Cookies
		lines   []string
		want    []string
	}{
		"ignored by prefix":        {Cookies{Ignore: []string{"_ga*", "_gid"}}, []string{"_ga=1; _gid=2; _ga_X=3"}, nil},
		"what is left":             {Cookies{Ignore: []string{"_ga*"}}, []string{"session=a; _ga=1; lang=de"}, []string{"lang=de; session=a"}},
		"only some":                {Cookies{Only: []string{"lang", "currency"}}, []string{"session=a; lang=de; language=x; currency=EUR"}, []string{"currency=EUR; lang=de"}},
		"only by prefix":           {Cookies{Only: []string{"l*"}}, []string{"lang=de; session=a; l=1"}, []string{"l=1; lang=de"}},
		"several lines":            {Cookies{Ignore: []string{"x"}}, []string{"b=2; x=1", "a=1"}, []string{"a=1; b=2"}},
		"one name twice":           {Cookies{Ignore: []string{"x"}}, []string{"b=2; a=1; b=1"}, []string{"a=1; b=2; b=1"}},
		"names have case":          {Cookies{Ignore: []string{"_GA"}}, []string{"_ga=1"}, []string{"_ga=1"}},
		"white space and nothing":  {Cookies{Ignore: []string{"x"}}, []string{" ;; a =1 ;x = 2"}, []string{"a =1"}},
		"a value with =":           {Cookies{Ignore: []string{"x"}}, []string{"a=b=c; x==; d"}, []string{"a=b=c; d"}},
		"without = it is all name": {Cookies{Only: []string{"a"}}, []string{"a; ab"}, []string{"a"}},
		"no cookies":               {Cookies{Only: []string{"a"}}, nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			header := http.Header{}
			if test.lines != nil {
				header["Cookie"] = test.lines
			}
			if test.cookies.Cut(header); !slices.Equal(header["Cookie"], test.want) || len(header) != min(len(test.want), 1) {
				t.Errorf("%q, want %q", header, test.want)
			}
		})
	}
}

// TestManyCookiesKeepTheirOrder: to sort what no browser sends costs more than all the rest.
func TestManyCookiesKeepTheirOrder(t *testing.T) {
	for count, sorted := range map[int]bool{maxSortedCookies: true, maxSortedCookies + 1: false} {
		var pairs []string
		for i := range count {
			pairs = append(pairs, fmt.Sprintf("c%03d=v", count-i))
		}
		header := http.Header{"Cookie": {"_ga=1; " + strings.Join(pairs, "; ")}}
		(&Cookies{Ignore: []string{"_ga"}}).Cut(header)
		left := strings.Split(header.Get("Cookie"), "; ")
		if len(left) != count || slices.IsSorted(left) != sorted {
			t.Errorf("%d of %d, sorted: %v", len(left), count, slices.IsSorted(left))
		}
	}
}

// FuzzCookies: what is left names no cookie that is ignored, is in order, and is left as
// it is when it comes again.
func FuzzCookies(f *testing.F) {
	f.Add("a=1; _ga=2", "_ga*")
	f.Add(`a="x; _ga=1"; b=2;;=;`, "b")
	f.Fuzz(func(t *testing.T, line, pattern string) {
		c := Cookies{Ignore: []string{pattern}}
		header := http.Header{"Cookie": {line}}
		c.Cut(header)
		once := slices.Clone(header["Cookie"])
		for pair := range strings.SplitSeq(strings.Join(once, ";"), ";") {
			if pair = strings.Trim(pair, " \t"); pair != "" && namedBy(pattern, cookieName(pair)) {
				t.Errorf("%q is left of %q", pair, line)
			}
		}
		if c.Cut(header); !slices.Equal(header["Cookie"], once) {
			t.Errorf("%q becomes %q", once, header["Cookie"])
		}
	})
}
