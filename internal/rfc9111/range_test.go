package rfc9111

import (
	"net/http"
	"slices"
	"strings"
	"testing"
)

func TestSingleRange(t *testing.T) {
	for _, test := range []struct {
		lines         []string
		size          int64
		start, length int64
		ok            bool
	}{
		{[]string{"bytes=0-0"}, 10, 0, 1, true},
		{[]string{"bytes=2-5"}, 10, 2, 4, true},
		{[]string{"Bytes=2-"}, 10, 2, 8, true},
		{[]string{"bytes= 2-5 "}, 10, 2, 4, true},
		{[]string{"bytes=9-99"}, 10, 9, 1, true},
		{[]string{"bytes=2-99999999999999999999999"}, 10, 2, 8, true},
		{[]string{"bytes=-3"}, 10, 7, 3, true},
		{[]string{"bytes=-30"}, 10, 0, 10, true},
		{[]string{"bytes=-99999999999999999999999"}, 10, 0, 10, true},
		{[]string{"bytes=-0"}, 10, 0, 0, false},
		{[]string{"bytes=-1"}, 0, 0, 0, false},
		{[]string{"bytes=0-"}, 0, 0, 0, false},
		{[]string{"bytes=10-"}, 10, 0, 0, false},
		{[]string{"bytes=99999999999999999999999-"}, 10, 0, 0, false},
		{[]string{"bytes=5-2"}, 10, 0, 0, false},
		{[]string{"bytes=0-1,3-4"}, 10, 0, 0, false},
		{[]string{"bytes=0-1", "bytes=3-4"}, 10, 0, 0, false},
		{[]string{"lines=0-1"}, 10, 0, 0, false},
		{[]string{"bytes=+1-2"}, 10, 0, 0, false},
		{[]string{"bytes=1"}, 10, 0, 0, false},
		{[]string{"bytes=a-b"}, 10, 0, 0, false},
		{[]string{"bytes"}, 10, 0, 0, false},
		{[]string{"bytes=-"}, 10, 0, 0, false},
		{nil, 10, 0, 0, false},
	} {
		start, length, ok := SingleRange(test.lines, test.size)
		if ok != test.ok || ok && (start != test.start || length != test.length) {
			t.Errorf("%q of %d: %d, %d, %v", test.lines, test.size, start, length, ok)
		}
	}
}

func FuzzSingleRange(f *testing.F) {
	f.Add("bytes=1-2", int64(10))
	f.Add("bytes=-9223372036854775808", int64(1))
	f.Fuzz(func(t *testing.T, s string, size int64) {
		if size < 0 {
			return
		}
		start, length, ok := SingleRange([]string{s}, size)
		if ok && (start < 0 || length <= 0 || start > size-length) {
			t.Errorf("%q of %d: %d, %d", s, size, start, length)
		}
	})
}

func TestRanges(t *testing.T) {
	for name, tt := range map[string]struct {
		lines []string
		size  int64
		want  []Range
		ok    bool
	}{
		"one":                    {[]string{"bytes=0-1"}, 10, []Range{{0, 2}}, true},
		"two":                    {[]string{"Bytes=8-, 0-1"}, 10, []Range{{8, 2}, {0, 2}}, true},
		"the end":                {[]string{"bytes=-3,0-0"}, 10, []Range{{7, 3}, {0, 1}}, true},
		"one of them beyond":     {[]string{"bytes=10-,2-3,-0"}, 10, []Range{{2, 2}}, true},
		"beyond":                 {[]string{"bytes=10-12,99-"}, 10, nil, true},
		"the last none":          {[]string{"bytes=-0"}, 10, nil, true},
		"backwards":              {[]string{"bytes=5-2"}, 10, nil, false},
		"backwards beyond":       {[]string{"bytes=15-12"}, 10, nil, false},
		"of nothing":             {[]string{"bytes=-5"}, 0, nil, false},
		"more than the whole":    {[]string{"bytes=0-,0-0"}, 10, nil, false},
		"16":                     {[]string{"bytes=0-0" + strings.Repeat(",5-5", 15)}, 100, append([]Range{{0, 1}}, slices.Repeat([]Range{{5, 1}}, 15)...), true},
		"17":                     {[]string{"bytes=0-0" + strings.Repeat(",5-5", 16)}, 100, nil, false},
		"many empty ones":        {[]string{"bytes=0-0" + strings.Repeat(",", 16)}, 10, nil, false},
		"an empty one":           {[]string{"bytes=,0-0, "}, 10, []Range{{0, 1}}, true},
		"only empty ones":        {[]string{"bytes=,"}, 10, nil, false},
		"two lines":              {[]string{"bytes=0-1", "bytes=2-3"}, 10, nil, false},
		"another unit":           {[]string{"lines=0-1"}, 10, nil, false},
		"no unit":                {[]string{"0-1"}, 10, nil, false},
		"one that is none":       {[]string{"bytes=0-1,a-b"}, 10, nil, false},
		"one without a dash":     {[]string{"bytes=0-1,4"}, 10, nil, false},
		"sums beyond 63 bits":    {[]string{"bytes=-9223372036854775807,-9223372036854775000"}, 10, nil, false},
		"positions beyond those": {[]string{"bytes=18446744073709551615-18446744073709551616,0-99999999999999999999"}, 10, []Range{{0, 10}}, true},
	} {
		if got, ok := Ranges(tt.lines, tt.size); ok != tt.ok || ok && !slices.Equal(got, tt.want) {
			t.Errorf("%s: %v, %v", name, got, ok)
		}
	}
}

func TestRangeApplies(t *testing.T) {
	const modified, later = "Sat, 21 Nov 2026 12:00:00 GMT", "Sat, 21 Nov 2026 12:00:01 GMT"
	response := http.Header{"Etag": {`"a"`}, "Last-Modified": {modified}, "Date": {later}}
	coded := http.Header{"Etag": {`"a"`}, "Last-Modified": {modified}, "Date": {later}, "Content-Encoding": {"gzip"}}
	cut := coded.Clone()
	cut.Set("Accept-Ranges", "bytes")
	for name, test := range map[string]struct {
		condition []string
		response  http.Header
		want      bool
	}{
		"none":           {nil, response, true},
		"same tag":       {[]string{`"a"`}, response, true},
		"other tag":      {[]string{`"b"`}, response, false},
		"weak":           {[]string{`W/"a"`}, http.Header{"Etag": {`W/"a"`}}, false},
		"no tag":         {[]string{`"a"`}, http.Header{}, false},
		"two":            {[]string{`"a"`, `"a"`}, response, false},
		"same date":      {[]string{modified}, response, true},
		"other date":     {[]string{later}, response, false},
		"date too young": {[]string{modified}, http.Header{"Last-Modified": {modified}, "Date": {modified}}, false},
		"no Date":        {[]string{modified}, http.Header{"Last-Modified": {modified}}, false},
		"nonsense":       {[]string{"a"}, http.Header{"Last-Modified": {"a"}, "Date": {later}}, false},

		"coded":                     {nil, coded, false},
		"coded, identity":           {nil, http.Header{"Content-Encoding": {"identity"}}, true},
		"coded, with parts":         {nil, cut, true},
		"coded, same tag":           {[]string{`"a"`}, coded, false},
		"coded, with parts, by tag": {[]string{`"a"`}, cut, false},
		"coded, same date":          {[]string{modified}, cut, false},
		"an encoder's tag":          {[]string{`"a-gzip"`}, http.Header{"Etag": {`"a-gzip"`}}, false},
	} {
		request := http.Header{}
		if test.condition != nil {
			request["If-Range"] = test.condition
		}
		if got := RangeApplies(request, test.response); got != test.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
