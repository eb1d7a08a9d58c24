package informers

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"
)

// Input names the manifests that a command reads, as kubectl's flags -f and -k do.
//
// It does not use the resource builder of k8s.io/cli-runtime. The builder links kustomize, which runs git for remote bases, and
// the agent runs no program. It would also make the agent's binary 14 MB larger, see docs/decisions.md.
type Input struct {
	Paths          []string // files, directories, URLs, and "-" for Stdin
	Kustomizations []string // directories for Kustomize
	Namespace      string   // of objects without a namespace; empty: default

	Stdin io.Reader
	// Kustomize returns the manifests that kustomize builds from a directory. Nil: the program has no kustomize.
	Kustomize func(dir string) ([]byte, error)
}

// ErrNoKustomize is the error of a kustomize directory without a Kustomize.
var ErrNoKustomize = errors.New("this binary has no kustomize")

// Bounds on the download of a manifest.
const (
	downloadTimeout = 30 * time.Second
	downloadLimit   = 64 << 20 // bytes
)

// Read reads all manifests, in the order of the paths. The context bounds downloads.
func (in Input) Read(ctx context.Context) (Manifests, error) {
	var all Manifests
	for _, p := range in.Paths {
		found, err := in.readPath(ctx, p)
		if err != nil {
			return nil, fmt.Errorf("read manifests: %w", plainPath(err))
		}
		all = append(all, found...)
	}
	for _, dir := range in.Kustomizations {
		found, err := in.readKustomization(dir)
		if err != nil {
			return nil, fmt.Errorf("read manifests: %w", err)
		}
		all = append(all, found...)
	}
	return all, nil
}

// readPath reads a file, a directory, a URL or standard input.
func (in Input) readPath(ctx context.Context, p string) (Manifests, error) {
	r := reader{namespace: in.Namespace}
	switch {
	case p == "-":
		if in.Stdin == nil {
			return nil, errors.New("there is no standard input")
		}
		data, err := io.ReadAll(in.Stdin)
		if err != nil {
			return nil, err
		}
		return r.parse(data, "standard input")
	case strings.HasPrefix(p, "https://"), strings.HasPrefix(p, "http://"):
		data, err := download(ctx, p)
		if err != nil {
			return nil, err
		}
		return r.parse(data, p)
	}
	info, err := os.Stat(p)
	if err != nil {
		return nil, err
	}
	if info.IsDir() {
		return r.readTree(os.DirFS(p), p)
	}
	// A file that is named itself is read whatever its extension is.
	data, err := os.ReadFile(p)
	if err != nil {
		return nil, err
	}
	return r.parse(data, p)
}

// download returns the content of a URL.
func download(ctx context.Context, address string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, downloadTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, fmt.Errorf("%s is not a URL", address) //nolint:nilerr // the cause has names of Go
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		// The cause without the method and the URL, which the message has in its own form.
		var cause *url.Error
		if errors.As(err, &cause) {
			err = cause.Err
		}
		return nil, fmt.Errorf("download %s: %w", address, err)
	}
	defer response.Body.Close() //nolint:errcheck // the body was only read
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("download %s: the server answers %s", address, response.Status)
	}
	data, err := io.ReadAll(io.LimitReader(response.Body, downloadLimit+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("download %s: %w", address, err)
	case len(data) > downloadLimit:
		return nil, fmt.Errorf("download %s: it has more than %d MiB", address, downloadLimit>>20)
	}
	return data, nil
}

// readKustomization reads the manifests that kustomize builds from a directory.
func (in Input) readKustomization(dir string) (Manifests, error) {
	if in.Kustomize == nil {
		return nil, fmt.Errorf("%s: %w: use the kubectl plugin, or pipe the output of \"kubectl kustomize %s\" into -f -", dir, ErrNoKustomize, dir)
	}
	data, err := in.Kustomize(dir)
	if err != nil {
		return nil, fmt.Errorf("kustomize %s: %w", dir, err)
	}
	return reader{namespace: in.Namespace}.parse(data, "kustomize "+dir)
}

// statOps are the names in errors of os.Stat, on Linux and macOS and on Windows.
var statOps = []string{"stat", "lstat", "fstatat", "statat", "CreateFile", "FindFirstFile", "GetFileAttributesEx"}

// plainPath returns an error of the file system without the name of the system call.
func plainPath(err error) error {
	var cause *os.PathError
	if errors.As(err, &cause) && slices.Contains(statOps, cause.Op) {
		return fmt.Errorf("%s: %w", cause.Path, cause.Err)
	}
	return err
}
