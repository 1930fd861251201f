//go:build unix

package caddygroupcache_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
)

// TestCookiesThatAreIgnored: visitors who differ in nothing but analytics share what varies
// by Cookie, on one node and on three; users with a session don't, at the same time.
func TestCookiesThatAreIgnored(t *testing.T) {
	for _, nodes := range []int{1, 3} {
		t.Run(fmt.Sprint(nodes), func(t *testing.T) {
			o := startOrigin(t, func(w http.ResponseWriter, r *http.Request) {
				if strings.Contains(r.Header.Get("Cookie"), "_ga") {
					t.Errorf("the upstream gets %q", r.Header.Get("Cookie"))
				}
				w.Header().Set("Vary", "Cookie")
				w.Header().Set("Cache-Control", "s-maxage=60")
				fmt.Fprint(w, "for ", r.Header.Get("Cookie"))
			})
			c := startCluster(t, nodes, o, "cookies ignore _ga* _gid\npeer_timeout 5s")
			for i := range 40 {
				a := c[i%nodes].get("/page", "Cookie", fmt.Sprintf("_ga=GA1.%d; _gid=%d", i, i))
				a.is(t, "visitor", "for ")
			}
			if n := o.fetches("/page"); n != 1 {
				t.Errorf("%d fetches for 40 visitors", n)
			}
			var all sync.WaitGroup
			for i := range 60 {
				all.Go(func() {
					want, cookie := "for ", fmt.Sprintf("_ga=GA1.%d", i)
					if i%3 > 0 {
						want = fmt.Sprintf("for lang=de; session=%d", i%3)
						cookie = fmt.Sprintf("session=%d; _gid=%d; lang=de", i%3, i)
					}
					c[i%nodes].get("/together", "Cookie", cookie).is(t, cookie, want)
				})
			}
			all.Wait()
			if n := o.fetches("/together"); n < 3 || n > 3*nodes { // before it is known what they vary by, nodes may ask too
				t.Errorf("%d fetches for visitors and two users", n)
			}
		})
	}
}
