// Command kubecheck reads Kubernetes manifests as the API server does: a kind
// that it doesn't know, a field that the kind doesn't have and a value of the
// wrong type are errors.
//
//	kubecheck FILE...
package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/kubernetes/scheme"
)

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: kubecheck FILE...")
		os.Exit(2)
	}
	for _, name := range os.Args[1:] {
		if err := check(name); err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
			os.Exit(1)
		}
	}
}

// check decodes each document of a file, and prints what it is.
func check(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	strict := serializer.NewCodecFactory(scheme.Scheme, serializer.EnableStrict).UniversalDeserializer()
	documents := yaml.NewYAMLReader(bufio.NewReader(f))
	for i := 1; ; i++ {
		document, err := documents.Read()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("document %d: %w", i, err)
		}
		var object runtime.Object
		if object, _, err = strict.Decode(document, nil, nil); err != nil {
			return fmt.Errorf("document %d: %w", i, err)
		}
		kind := object.GetObjectKind().GroupVersionKind()
		fmt.Printf("%s: %s %s\n", name, kind.GroupVersion(), kind.Kind)
	}
}
