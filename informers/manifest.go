package informers

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	mnpv1 "github.com/k8snetworkplumbingwg/multi-networkpolicy/pkg/apis/k8s.cni.cncf.io/v1beta1"
	netv1 "github.com/k8snetworkplumbingwg/network-attachment-definition-client/pkg/apis/k8s.cni.cncf.io/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"
)

// object is any object of the four kinds, in a Go type of Kubernetes or unstructured.
type object interface {
	metav1.Object
	runtime.Object
}

// newObject returns an empty object of the kind, or nil if it is none of the four kinds.
func newObject(apiVersion, kind string) object {
	switch apiVersion + " " + kind {
	case "v1 Pod":
		return &corev1.Pod{}
	case "v1 Namespace":
		return &corev1.Namespace{}
	// The agent reads the spec of these kinds as raw JSON, like the spec of an object from the API server, so an
	// invalid field in a file has the same effect.
	case netv1.SchemeGroupVersion.String() + " " + KindNAD, mnpv1.SchemeGroupVersion.String() + " " + KindPolicy:
		return &unstructured.Unstructured{} // decoded later like an object from the API server
	}
	return nil
}

// Manifests are objects read from files, in the order of the files. They are for Files.Load. The zero value has no
// objects.
type Manifests []manifest

// manifest is an object with its place, so that an error about it can name the file.
type manifest struct {
	object object
	place  string // file and document, for errors
}

// ReadFiles reads manifests in YAML or JSON from files and, recursively, from directories. In a directory it reads files with the
// extensions yaml, yml and json.
func ReadFiles(paths ...string) (Manifests, error) {
	var all Manifests
	for _, p := range paths {
		found, err := readPath(p)
		if err != nil {
			return nil, fmt.Errorf("read manifests: %w", err)
		}
		all = append(all, found...)
	}
	return all, nil
}

// ReadFS reads manifests from file systems, such as an embed.FS.
func ReadFS(trees ...fs.FS) (Manifests, error) {
	var all Manifests
	for _, tree := range trees {
		found, err := readTree(tree, ".", "")
		if err != nil {
			return nil, fmt.Errorf("read manifests: %w", err)
		}
		all = append(all, found...)
	}
	return all, nil
}

// readTree reads the manifests under a root, which is a directory or a file. Errors have name before the names of files.
func readTree(fsys fs.FS, root, name string) (Manifests, error) {
	var all Manifests
	err := fs.WalkDir(fsys, root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		// A file that is named itself is read whatever its extension is.
		if ext := path.Ext(p); d.IsDir() || p != root && ext != ".yaml" && ext != ".yml" && ext != ".json" {
			return nil
		}
		data, err := fs.ReadFile(fsys, p)
		if err != nil {
			return err
		}
		found, err := parseManifests(data, path.Join(name, p))
		all = append(all, found...)
		return err
	})
	return all, err
}

// readPath reads a file or a directory of the operating system. A single file becomes the root of a tree, so that files
// and directories take the same way.
func readPath(p string) (Manifests, error) {
	info, err := os.Stat(p)
	if err != nil {
		return nil, err
	}
	if info.IsDir() {
		return readTree(os.DirFS(p), ".", p)
	}
	return readTree(os.DirFS(filepath.Dir(p)), filepath.Base(p), filepath.Dir(p))
}

// parseManifests reads the YAML documents of a file.
func parseManifests(data []byte, file string) (Manifests, error) {
	var all Manifests
	documents := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(data)))
	// Documents are counted from 1, as an editor counts them between lines of "---".
	for n := 1; ; n++ {
		document, err := documents.Read()
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		place := fmt.Sprintf("%s, document %d", file, n)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", place, err)
		}
		found, err := parseDocument(document, place)
		if err != nil {
			return nil, err
		}
		all = append(all, found...)
	}
}

// parseDocument reads a YAML document: an object, or a List of objects. place is the document's position, for errors. A kind that
// policies do not depend on is an error, since it is likely a mistake.
func parseDocument(document []byte, place string) (Manifests, error) {
	data, err := yaml.YAMLToJSON(document)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", place, err)
	}
	if string(data) == "null" {
		return nil, nil // only comments
	}
	var head struct {
		metav1.TypeMeta
		Items []json.RawMessage `json:"items"`
	}
	if err := json.Unmarshal(data, &head); err != nil {
		return nil, fmt.Errorf("%s: %w", place, err)
	}
	// A List has its objects in items. kubectl prints several objects in this form.
	if head.APIVersion == "v1" && head.Kind == "List" {
		var all Manifests
		for i, item := range head.Items {
			found, err := parseDocument(item, fmt.Sprintf("%s, item %d", place, i+1))
			if err != nil {
				return nil, err
			}
			all = append(all, found...)
		}
		return all, nil
	}
	o := newObject(head.APIVersion, head.Kind)
	if o == nil {
		return nil, fmt.Errorf("%s: kind %q of %q is none of Pod, Namespace, NetworkAttachmentDefinition, MultiNetworkPolicy",
			place, head.Kind, head.APIVersion)
	}
	// The typed objects are checked against their Go types here; unstructured objects only for the envelope.
	if err := json.Unmarshal(data, o); err != nil {
		return nil, fmt.Errorf("%s: %w", place, err)
	}
	if o.GetName() == "" {
		return nil, fmt.Errorf("%s: a %s without a name", place, head.Kind)
	}
	// Everything behind this line is as if the API server had stored the object.
	setDefaults(o)
	return Manifests{{object: o, place: place}}, nil
}

// setDefaults sets the defaults of the API server for the fields that policies depend on.
func setDefaults(o object) {
	ns, isNamespace := o.(*corev1.Namespace)
	switch {
	// A Namespace is in no namespace, whatever the file says.
	case isNamespace:
		ns.Namespace = ""
		if ns.Labels == nil {
			ns.Labels = map[string]string{}
		}
		// The API server sets this label on each namespace; selectors rely on it.
		ns.Labels[corev1.LabelMetadataName] = ns.Name
	case o.GetNamespace() == "":
		o.SetNamespace(metav1.NamespaceDefault)
	}
	if o.GetUID() == "" {
		// The same file gives the same UID.
		o.SetUID(types.UID(strings.Trim(o.GetNamespace()+"/"+o.GetName(), "/")))
	}
	if pod, ok := o.(*corev1.Pod); ok {
		defaultProtocols(pod.Spec.InitContainers)
		defaultProtocols(pod.Spec.Containers)
	}
}

// defaultProtocols sets TCP for ports without a protocol.
func defaultProtocols(containers []corev1.Container) {
	for _, c := range containers {
		for i := range c.Ports {
			if c.Ports[i].Protocol == "" {
				c.Ports[i].Protocol = corev1.ProtocolTCP
			}
		}
	}
}
