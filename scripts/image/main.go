// Command image writes the image of libnet as an OCI layout: the programs, static, and nothing else; and
// beside it what each architecture is made of, in SPDX.
// The same programs make the same bytes, on every machine. It is run by make image.
package main

import (
	"archive/tar"
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// programs are what is in the image, in directory.
var programs = []string{"bridge-ln", "ipam-ln", "ln-agent", "lnctl", "overlay-ln", "portmap-ln"}

const (
	directory = "opt/libnet"
	name      = "ghcr.io/libnet-cni/libnet"
)

func main() {
	from := flag.String("from", "", "`directory` with a directory of programs for each architecture, as amd64")
	to := flag.String("to", "", "`directory` of the layout, which is made anew")
	version := flag.String("version", "", "tag of the image")
	flag.Parse()
	if err := run(*from, *to, *version); err != nil {
		fmt.Fprintln(os.Stderr, "image:", err)
		os.Exit(1)
	}
}

func run(from, to, version string) error {
	if from == "" || to == "" || version == "" {
		return errors.New("want -from, -to and -version")
	}
	entries, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, e := range entries { // in the order of their names
		image, err := imageOf(filepath.Join(from, e.Name()), e.Name(), version)
		if err != nil {
			return fmt.Errorf("%s: %w", e.Name(), err)
		}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{
			Add: image, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: e.Name()}},
		})
	}
	if err := os.RemoveAll(to); err != nil {
		return err
	}
	for _, e := range entries {
		data, err := bill(filepath.Join(from, e.Name()), e.Name(), version)
		if err != nil {
			return fmt.Errorf("bill of materials: %w", err)
		}
		if err := os.WriteFile(filepath.Clean(to)+"-sbom-"+e.Name()+".json", data, 0o644); err != nil {
			return err
		}
	}
	path, err := layout.Write(to, empty.Index)
	if err != nil {
		return err
	}
	// Both names are what tools look for: containerd's, and the one of the specification.
	err = path.AppendIndex(index, layout.WithAnnotations(map[string]string{
		"io.containerd.image.name": name + ":" + version, "org.opencontainers.image.ref.name": version,
	}))
	if err != nil {
		return err
	}
	digest, err := index.Digest()
	if err == nil {
		_, err = fmt.Printf("%s:%s %s\n", name, version, digest)
	}
	return err
}

func imageOf(dir, arch, version string) (v1.Image, error) {
	files, err := archive(dir)
	if err != nil {
		return nil, err
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(files)), nil },
		tarball.WithMediaType(types.OCILayer))
	if err != nil {
		return nil, err
	}
	image := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	if image, err = mutate.AppendLayers(image, layer); err != nil {
		return nil, err
	}
	config, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.OS, config.Architecture, config.Created = "linux", arch, v1.Time{Time: time.Unix(0, 0).UTC()}
	config.Config = v1.Config{
		Entrypoint: []string{"/" + directory + "/ln-agent"}, Env: []string{"PATH=/" + directory},
		Labels: map[string]string{
			"org.opencontainers.image.source": "https://github.com/libnet-cni/libnet", "org.opencontainers.image.licenses": "Apache-2.0",
			"org.opencontainers.image.version": version,
		},
	}
	return mutate.ConfigFile(image, config)
}

// archive is a tar file of the programs, in which nothing tells of when and where it was made.
func archive(from string) ([]byte, error) {
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, parent := range []string{"opt/", directory + "/"} {
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: parent, Mode: 0o755}); err != nil {
			return nil, err
		}
	}
	for _, name := range programs {
		data, err := os.ReadFile(filepath.Join(from, name))
		if err != nil {
			return nil, err
		}
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: directory + "/" + name, Mode: 0o755, Size: int64(len(data))}); err != nil {
			return nil, err
		}
		if _, err := w.Write(data); err != nil {
			return nil, err
		}
	}
	return out.Bytes(), w.Close()
}
