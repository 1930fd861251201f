package command

import (
	"bytes"
	"io"
	"strconv"
	"strings"
	"unicode"
)

// show writes what print makes for people: URLs, tags and fields are those of clients and
// upstreams, and a terminal must not take some of them for orders.
func show(out io.Writer, print func(io.Writer) error) error {
	var b bytes.Buffer
	if err := print(&b); err != nil {
		return err
	}
	_, err := io.WriteString(out, printable(b.String()))
	return err
}

// printable has escapes in place of what has no form of its own: controls, those of C1 among
// them, and what changes the direction of a text.
func printable(text string) string {
	var b strings.Builder
	for _, c := range text {
		if c == '\n' || unicode.IsPrint(c) {
			b.WriteRune(c)
		} else {
			b.WriteString(strings.Trim(strconv.QuoteRuneToASCII(c), "'"))
		}
	}
	return b.String()
}
