package rfc9111

import (
	"net/http"
	"slices"
	"strings"

	"github.com/dunglas/httpsfv"
)

// Limits of what one response may be tagged with. A response beyond them is not
// stored, because it could not be purged by all its tags.
const (
	MaxTags      = 256
	MaxTagLength = 256 // bytes
)

// Tags returns the cache tags of a response, sorted and each once, from the
// fields of the given canonical names. It is false if there are more, or longer
// ones, than may be.
func Tags(response http.Header, names []string) ([]string, bool) {
	var tags []string
	for _, name := range names {
		for _, line := range response[name] {
			for _, tag := range SplitTags(line) {
				if len(tag) > MaxTagLength || len(tags) == MaxTags {
					return nil, false
				}
				tags = append(tags, tag)
			}
		}
	}
	slices.Sort(tags)
	return slices.Compact(tags), true
}

// SplitTags returns the cache tags of a field line, or of what a purge names. White space
// and commas separate them in every field: applications write "a, b" into Surrogate-Key,
// which Fastly reads as the tags "a," and "b".
func SplitTags(line string) []string {
	return strings.FieldsFunc(line, func(c rune) bool { return strings.ContainsRune(" \t\r\n,", c) })
}

// CacheGroups returns the groups that a response belongs to (RFC 9875 §2),
// sorted and each once. It is false if there are more, or longer ones, than may
// be. A field that cannot be read counts as absent.
func CacheGroups(response http.Header) ([]string, bool) {
	groups := groupNames(response["Cache-Groups"])
	if len(groups) > MaxTags || slices.ContainsFunc(groups, tooLong) {
		return nil, false
	}
	slices.Sort(groups)
	return slices.Compact(groups), true
}

// MaxInvalidated is how many groups one response may invalidate. Of more, the first count.
const MaxInvalidated = 1 << 12

// InvalidatedGroups returns the groups that the response to an unsafe request
// invalidates (RFC 9875 §3), sorted and each once. Their number is not that of the groups of
// a stored response, and a name that is too long for one of these is no other's matter.
func InvalidatedGroups(response http.Header) []string {
	groups := slices.DeleteFunc(groupNames(response["Cache-Group-Invalidation"]), tooLong)
	groups = groups[:min(len(groups), MaxInvalidated)]
	slices.Sort(groups)
	return slices.Compact(groups)
}

func tooLong(name string) bool { return len(name) > MaxTagLength }

// groupNames returns the names in a field; nil, if the field cannot be read.
func groupNames(lines []string) (names []string) {
	if len(lines) == 0 {
		return nil
	}
	list, err := httpsfv.UnmarshalList(lines)
	if err != nil {
		return nil
	}
	for _, member := range list {
		item, _ := member.(httpsfv.Item)
		if name, ok := item.Value.(string); ok {
			names = append(names, name)
		}
	}
	return names
}
