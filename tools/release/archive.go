package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"os"
	"path/filepath"
	"time"
)

// A member is a file of an archive, or a folder if its name ends with a slash.
type member struct {
	name    string
	mode    int64
	content []byte
}

// archive packs members with nothing in it that depends on the machine: no
// owner, no umask, and one time.
func archive(made time.Time, members []member) ([]byte, error) {
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, m := range members {
		header := &tar.Header{Name: m.name, Mode: m.mode, Size: int64(len(m.content)), ModTime: made, Typeflag: tar.TypeReg, Format: tar.FormatUSTAR}
		if m.name[len(m.name)-1] == '/' {
			header.Typeflag = tar.TypeDir
		}
		if err := w.WriteHeader(header); err != nil {
			return nil, err
		}
		if _, err := w.Write(m.content); err != nil {
			return nil, err
		}
	}
	err := w.Close()
	return out.Bytes(), err
}

// compress leaves out what gzip otherwise says of a file: its name and its time.
func compress(content []byte) ([]byte, error) {
	var out bytes.Buffer
	w, err := gzip.NewWriterLevel(&out, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(content); err != nil {
		return nil, err
	}
	err = w.Close()
	return out.Bytes(), err
}

// pack writes the archive that users download.
func (r *release) pack(platform, binary string) error {
	content, err := os.ReadFile(binary)
	if err != nil {
		return err
	}
	members := []member{{name: filepath.Base(binary), mode: 0o755, content: content}}
	for _, name := range []string{"LICENSE", "README.md", "CHANGELOG.md"} {
		content, err := r.git("show", r.revision+":"+name)
		if err != nil {
			return err
		}
		members = append(members, member{name: name, mode: 0o644, content: content})
	}
	packed, err := archive(r.made, members)
	if err != nil {
		return err
	}
	if packed, err = compress(packed); err != nil {
		return err
	}
	return os.WriteFile(r.file(platform, ".tar.gz"), packed, 0o644)
}
