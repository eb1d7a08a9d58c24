package informers

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	mnpv1 "github.com/k8snetworkplumbingwg/multi-networkpolicy/pkg/apis/k8s.cni.cncf.io/v1beta1"
	netv1 "github.com/k8snetworkplumbingwg/network-attachment-definition-client/pkg/apis/k8s.cni.cncf.io/v1"
	goyaml "go.yaml.in/yaml/v3"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache/policy"
)

// object is any object of the four kinds, in a Go type of Kubernetes or unstructured.
type object interface {
	metav1.Object
	runtime.Object
}

// schemas has the Go types of the four kinds, for the names of their fields, by apiVersion and kind.
var schemas = map[string]reflect.Type{
	"v1 Pod":       reflect.TypeFor[corev1.Pod](),
	"v1 Namespace": reflect.TypeFor[corev1.Namespace](),
	netv1.SchemeGroupVersion.String() + " " + KindNAD:    reflect.TypeFor[netv1.NetworkAttachmentDefinition](),
	mnpv1.SchemeGroupVersion.String() + " " + KindPolicy: reflect.TypeFor[mnpv1.MultiNetworkPolicy](),
}

// newObject returns an empty object of the kind, or nil for another kind. A kind that is likely a misspelling of one of the
// four kinds is an error, since a skipped policy would look like a policy without effect.
func newObject(apiVersion, kind string) (object, error) {
	switch apiVersion + " " + kind {
	case "v1 Pod":
		return &corev1.Pod{}, nil
	case "v1 Namespace":
		return &corev1.Namespace{}, nil
	// The agent reads the spec of these kinds as raw JSON, like the spec of an object from the API server, so an
	// invalid field in a file has the same effect.
	case netv1.SchemeGroupVersion.String() + " " + KindNAD, mnpv1.SchemeGroupVersion.String() + " " + KindPolicy:
		return &unstructured.Unstructured{}, nil // decoded later like an object from the API server
	}
	switch {
	case kind == "":
		return nil, errors.New("an object without a kind")
	case apiVersion == "":
		return nil, fmt.Errorf("a %s without an apiVersion", kind)
	}
	group, _, hasGroup := strings.Cut(apiVersion, "/")
	for known := range schemas {
		version, name, _ := strings.Cut(known, " ")
		same := strings.EqualFold(kind, name) || strings.EqualFold(kind, name+"s") || strings.EqualFold(kind, strings.TrimSuffix(name, "y")+"ies")
		// Other groups may have a Pod or a Namespace of their own.
		if same && (hasGroup == strings.Contains(version, "/")) {
			return nil, fmt.Errorf("unknown kind %s of apiVersion %s, did you mean %s of %s?", kind, apiVersion, name, version)
		}
	}
	if group == mnpv1.SchemeGroupVersion.Group {
		return nil, fmt.Errorf("unknown kind %s of apiVersion %s, must be %s or %s", kind, apiVersion, KindPolicy, KindNAD)
	}
	return nil, nil
}

// Manifests are objects read from files, in the order of the files. They are for Files.Load. The zero value has no
// objects.
type Manifests []manifest

// manifest is an object with its place, so that an error about it can name the file.
type manifest struct {
	object object
	place  string // file and document, for errors
}

// ReadFS reads manifests from file systems, such as an embed.FS.
func ReadFS(trees ...fs.FS) (Manifests, error) {
	var all Manifests
	for _, tree := range trees {
		found, err := reader{}.readTree(tree, "")
		if err != nil {
			return nil, fmt.Errorf("read manifests: %w", err)
		}
		all = append(all, found...)
	}
	return all, nil
}

// reader reads the four kinds of objects and skips other kinds.
type reader struct {
	namespace string // of objects without a namespace; empty: default
}

// readTree reads the manifests in a directory, recursively: the files with the extensions yaml, yml and json, without the
// files of kustomize. Errors have name before the names of files.
func (r reader) readTree(fsys fs.FS, name string) (Manifests, error) {
	var all Manifests
	err := fs.WalkDir(fsys, ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		isManifest := slices.Contains([]string{".yaml", ".yml", ".json"}, path.Ext(p))
		if d.IsDir() || !isManifest || strings.TrimSuffix(path.Base(p), path.Ext(p)) == "kustomization" {
			return nil
		}
		data, err := fs.ReadFile(fsys, p)
		if err != nil {
			return err
		}
		found, err := r.parse(data, filepath.Join(name, filepath.FromSlash(p)))
		all = append(all, found...)
		return err
	})
	return all, err
}

// parse reads the YAML documents of a file.
func (r reader) parse(data []byte, file string) (Manifests, error) {
	var all Manifests
	documents := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(inUTF8(data))))
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
		data, err := yaml.YAMLToJSON(document)
		if err == nil {
			// YAMLToJSON takes the last value of a key that a map has twice, and its strict form refuses keys that override merged keys.
			err = goyaml.Unmarshal(document, new(any))
		}
		if err != nil {
			return nil, fmt.Errorf("%s: invalid YAML: %s", place, policy.Words(err)) //nolint:errorlint // the words replace the error
		}
		found, err := r.parseObject(data, place, metav1.TypeMeta{})
		if err != nil {
			return nil, err
		}
		all = append(all, found...)
	}
}

// parseObject reads an object, or a list of objects. place is the position of the object, for errors. The type is for an
// object without a type of its own, as the items of a PodList.
func (r reader) parseObject(data []byte, place string, itemType metav1.TypeMeta) (Manifests, error) {
	if string(data) == "null" {
		return nil, nil // only comments
	}
	head := struct {
		metav1.TypeMeta
		Items []json.RawMessage `json:"items"`
	}{TypeMeta: itemType}
	if err := json.Unmarshal(data, &head); err != nil {
		return nil, fmt.Errorf("%s: %s", place, policy.Words(err)) //nolint:errorlint // the words replace the error
	}
	// A list has its objects in items. kubectl prints several objects in this form.
	if kind, isList := strings.CutSuffix(head.Kind, "List"); isList {
		var all Manifests
		for i, item := range head.Items {
			found, err := r.parseObject(item, fmt.Sprintf("%s, item %d", place, i+1), metav1.TypeMeta{APIVersion: head.APIVersion, Kind: kind})
			if err != nil {
				return nil, err
			}
			all = append(all, found...)
		}
		return all, nil
	}
	o, err := newObject(head.APIVersion, head.Kind)
	if err != nil || o == nil {
		return nil, wrapPlace(place, err)
	}
	o.GetObjectKind().SetGroupVersionKind(head.GroupVersionKind())
	if err := decodeInto(o, data); err != nil {
		return nil, wrapPlace(place, err)
	}
	// Everything behind this line is as if the API server had stored the object.
	r.setDefaults(o)
	return Manifests{{object: o, place: place}}, nil
}

// wrapPlace returns an error with the place of the object, or nil for nil.
func wrapPlace(place string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", place, err)
}

// decodeInto decodes an object and checks its fields. Errors name the object.
// The envelope of every kind must have the right types. A wrong type in the spec of a policy is a problem of the policy, as it
// is for a policy from the API server.
func decodeInto(o object, data []byte) error {
	kind := o.GetObjectKind().GroupVersionKind().Kind
	var meta metav1.PartialObjectMetadata
	err := json.Unmarshal(data, &meta)
	label := strings.TrimSpace(kind + " " + strings.TrimPrefix(meta.Namespace+"/"+meta.Name, "/"))
	if err == nil && meta.Name == "" {
		return fmt.Errorf("a %s without a name", kind)
	}
	if err == nil {
		err = json.Unmarshal(data, o)
	}
	if err != nil {
		return fmt.Errorf("%s: %s", label, policy.Words(err)) //nolint:errorlint // the words replace the error
	}
	// The API server has checked the fields of its objects. A newer server has pods with fields that are unknown here.
	if meta.ResourceVersion != "" && kind != KindPolicy {
		return nil
	}
	var fields map[string]any
	if err := json.Unmarshal(data, &fields); err != nil {
		return fmt.Errorf("%s: %s", label, policy.Words(err)) //nolint:errorlint // the words replace the error
	}
	gvk := o.GetObjectKind().GroupVersionKind()
	if err := unknownFields(fields, schemas[gvk.GroupVersion().String()+" "+kind]); err != nil {
		return fmt.Errorf("%s: %w", label, err)
	}
	return nil
}

// setDefaults sets the defaults of the API server for the fields that policies depend on.
func (r reader) setDefaults(o object) {
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
		o.SetNamespace(cmp.Or(r.namespace, metav1.NamespaceDefault))
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
