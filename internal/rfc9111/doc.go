// Package rfc9111 is the HTTP caching policy of a shared cache: what may be
// stored, how long it is fresh, which request it answers and how it is
// validated (RFC 9111, RFC 9110 §13, RFC 5861, RFC 8246).
//
// Every function is pure: it looks at headers, at what was kept of an earlier
// response and at the time it is told, does no I/O, and changes none of its
// arguments. Request headers are expected with canonical names, as net/http
// delivers them. Results are safe to share between goroutines as long as
// nobody writes to them. No input makes a function panic; where a field is
// broken, the reading that caches less is taken.
package rfc9111
