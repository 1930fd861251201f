package caddygroupcache

import (
	"testing"
)

// TestOverridingFieldsAreInTheKey, as clients spell them, and as servers read what
// they spell.
func TestOverridingFieldsAreInTheKey(t *testing.T) {
	h := newHandler(t, newLoneNode(t), nil)
	plain, _ := keyOf(h, request(t.Context(), "/"))
	for name, counts := range map[string]bool{
		"CloudFront-Forwarded-Proto": true, "CF-Visitor": true, "X-Forwarded-Https": true, "X-Invoke-Path": true, "X-Matched-Path": true,
		"X-Now-Route-Matches": true, "X-Rewrite-Path": true, "X-Envoy-Original-Path": true, "X-Nextjs-Data": true, "X-Middleware-Prefetch": true,
		"X-Middleware-Subrequest": true, "X-Forwarded-Host": true, "Forwarded": true, "WL-Proxy-SSL": true, "$WSSC": true, "HTTPS": true,
		"X_Forwarded_Host": true, "x.forwarded.host": true, "cf_visitor": true, "X-Forwarded_Proto": true, "front_end.https": true,
		"X-Http_Method-Override": true, "X-React-Router-Prerender-Data": true, "RSC": true, "X-ProxyContextPath": true,

		"X-Forwarded-For": false, "X_Forwarded_For": false, "X-Real-Ip": false, "X-Request-Id": false, "Traceparent": false, "User-Agent": false,
		"Sec-Fetch-Mode": false, "Cookie": false, "Referer": false, "Dnt": false, "Sec-Gpc": false, "X-Requested-With": false,
	} {
		got, _ := keyOf(h, request(t.Context(), "/", name, "proto=x"))
		if (got != plain) != counts {
			t.Errorf("%s is in the key: %v", name, got != plain)
		}
		other, _ := keyOf(h, request(t.Context(), "/", name, "proto=y"))
		if (got != other) != counts {
			t.Errorf("the value of %s is in the key: %v", name, got != other)
		}
	}
}
