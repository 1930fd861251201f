package rfc9111

import (
	"slices"
	"testing"
)

func TestSpellings(t *testing.T) {
	for u, want := range map[string][]string{
		"https://a.test/a?b=c":    {"https://a.test/a?b=c"},
		"https://a.test/é":        {"https://a.test/é", "https://a.test/%C3%A9", "https://a.test/%c3%a9"},
		"/%c3%A9":                 {"/%c3%A9", "/%C3%A9", "/%c3%a9", "/é"},
		"/é%2f":                   {"/é%2f", "/%C3%A9%2f", "/%C3%A9%2F", "/%c3%a9%2f"},
		"/a b'^{x}?q=a b'^{x}":    {"/a b'^{x}?q=a b'^{x}", "/a%20b'%5E%7Bx%7D?q=a%20b%27^{x}", "/a%20b'%5e%7bx%7d?q=a%20b%27^{x}"},
		"/\xe9":                   {"/\xe9", "/%E9", "/%e9"},
		"/[a]|b\\?[a]|b\\":        {"/[a]|b\\?[a]|b\\"},
		"/100%?100%zZ&%":          {"/100%?100%zZ&%", "/100%?100%ZZ&%", "/100%?100%zz&%"},
		"/?a=%E6%97%A5??&b=?":     {"/?a=%E6%97%A5??&b=?", "/?a=%e6%97%a5??&b=?", "/?a=日??&b=?"},
		"/%27%22%20%25%7B?%27%7B": {"/%27%22%20%25%7B?%27%7B", "/%27%22%20%25%7b?%27%7b", "/%27\"%20%25{?'%7B"},
		"/%e":                     {"/%e", "/%E"},
		"http://a.test:8080":      {"http://a.test:8080"},
		"http://[::1]/<a>\"b`\"":  {"http://[::1]/<a>\"b`\"", "http://[::1]/%3Ca%3E%22b%60%22", "http://[::1]/%3ca%3e%22b%60%22"},
	} {
		if got := Spellings(u); !slices.Equal(got, want) {
			t.Errorf("%q: %q, want %q", u, got, want)
		}
	}
}
