package e2e

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"runtime"
)

// image is the name of the image that every container and pod of the test has.
const image = "e2e.test/pod:1"

// The parts of an OCI image, as far as containerd asks for them:
// https://github.com/opencontainers/image-spec
type (
	descriptor struct {
		MediaType   string            `json:"mediaType"`
		Digest      string            `json:"digest"`
		Size        int               `json:"size"`
		Annotations map[string]string `json:"annotations,omitempty"`
	}
	manifest struct {
		SchemaVersion int          `json:"schemaVersion"`
		MediaType     string       `json:"mediaType"`
		Config        descriptor   `json:"config"`
		Layers        []descriptor `json:"layers"`
	}
	index struct {
		SchemaVersion int          `json:"schemaVersion"`
		Manifests     []descriptor `json:"manifests"`
	}
)

// archive is a tar file in the making.
type archive struct {
	buf bytes.Buffer
	tw  *tar.Writer
	err error // the first one
}

func newArchive() *archive {
	a := &archive{}
	a.tw = tar.NewWriter(&a.buf)
	return a
}

func (a *archive) add(name string, mode int64, data []byte) {
	if a.err == nil {
		a.err = a.tw.WriteHeader(&tar.Header{Name: name, Mode: mode, Size: int64(len(data))})
	}
	if a.err == nil {
		_, a.err = a.tw.Write(data)
	}
}

// blob adds data under its digest.
func (a *archive) blob(kind string, data []byte) descriptor {
	sum := fmt.Sprintf("%x", sha256.Sum256(data))
	a.add("blobs/sha256/"+sum, 0o644, data)
	return descriptor{MediaType: "application/vnd.oci.image." + kind, Digest: "sha256:" + sum, Size: len(data)}
}

func (a *archive) bytes() ([]byte, error) {
	if a.err == nil {
		a.err = a.tw.Close()
	}
	return a.buf.Bytes(), a.err
}

// ociArchive returns an image with the one file program, as /pod. The image
// does as the sandbox image of a pod too.
func ociArchive(program string) ([]byte, error) {
	data, err := os.ReadFile(program)
	if err != nil {
		return nil, err
	}
	root := newArchive()
	root.add("pod", 0o755, data)
	layer, err := root.bytes()
	if err != nil {
		return nil, err
	}
	a := newArchive()
	m := manifest{SchemaVersion: 2, MediaType: "application/vnd.oci.image.manifest.v1+json"}
	m.Layers = []descriptor{a.blob("layer.v1.tar", layer)}
	m.Config = a.blob("config.v1+json", mustJSON(map[string]any{
		"architecture": runtime.GOARCH, "os": "linux",
		"config": map[string]any{"Entrypoint": []string{"/pod"}, "Cmd": []string{"pause"}},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{m.Layers[0].Digest}},
	}))
	d := a.blob("manifest.v1+json", mustJSON(m))
	d.Annotations = map[string]string{"io.containerd.image.name": image}
	a.add("index.json", 0o644, mustJSON(index{2, []descriptor{d}}))
	a.add("oci-layout", 0o644, []byte(`{"imageLayoutVersion":"1.0.0"}`))
	return a.bytes()
}

func mustJSON(v any) []byte {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return data
}
