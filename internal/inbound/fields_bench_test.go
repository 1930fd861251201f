package inbound

import (
	"fmt"
	"net/http"
	"testing"
)

// BenchmarkManyFields: what is looked at in each request grows with its fields, whatever
// they are called.
func BenchmarkManyFields(b *testing.B) {
	for _, name := range []string{"X-Any-%04d", "X.Any.%04d", "X-Forwarded-%04d", "Any-%04d-Name"} {
		header := make(http.Header)
		for i := range 900 {
			header.Set(fmt.Sprintf(name, i), "v")
		}
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				FieldsOf(header)
			}
		})
	}
}
