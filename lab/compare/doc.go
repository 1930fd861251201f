// Command compare composes Caddy sites at random, asks each of them and its twin
// without the cache the same requests, and reports every answer that differs.
//
// A site is drawn from a catalogue of Caddy's handlers and matchers (catalogue.go)
// and of what an upstream may do (script.go). Site and twin run in this process,
// in one config. Several users ask both, first one request after the other, then
// all at the same time. check.go says what may differ.
//
//	go run ./lab/compare                    # 1000 compositions, from seed 1
//	go run ./lab/compare -seed 42 -n 1      # one composition again
//	go run ./lab/compare -case 7            # with the elements of case 7 that notYet switches off
//	go run ./lab/compare -all               # with everything that notYet switches off
//	go run ./lab/compare -nodes 3 -n 200    # on a cluster of three processes, each request at any of them
//
// Composition i of a run has the seed seed+i. Each element is drawn by the seed and
// its own name, so a new element changes nothing else of a composition. A failure
// prints the seed and the smallest site that still shows it. An element that would
// only find a difference that is known has the number of its case in issue 20, and
// notYet has the reason; it goes when the case is mended.
//
// That the laboratory can fail show these seeds. With -case, at commit d313e2d, the
// composition differs from its twin:
//
//	case  seeds              difference
//	1     4 8 18 22 25       a denied user gets a hit
//	2     5 8 13 16 25       one listener's page on another
//	3     1 7 28 50 80       the site is refused
//	4     7 17 44 53 97      fields set in front are stored, or come back
//	5     1 2 8 28 37        the page of another user of forward_auth
//	6     5 10 18 22 26      Vary: X-Forwarded-For is not followed
//	7     1 18 118 155 191   one page's fragment in another
//	8     11 59 85 88 130    a refresh without map's placeholder
//	9     4 7 11 12 26       Last-Modified alone: another user's page, a denied download
//	10    20 25 43 50 66     an error page as the page; PUT does not invalidate
package main
