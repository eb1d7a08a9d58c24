package informers

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	mnpv1 "github.com/k8snetworkplumbingwg/multi-networkpolicy/pkg/apis/k8s.cni.cncf.io/v1beta1"
	netv1 "github.com/k8snetworkplumbingwg/network-attachment-definition-client/pkg/apis/k8s.cni.cncf.io/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	jsonserializer "k8s.io/apimachinery/pkg/runtime/serializer/json"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	toolscache "k8s.io/client-go/tools/cache"
	kjson "sigs.k8s.io/json"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache/policy"
)

// customResource is a client for a kind of custom resources.
//
// It replaces a generated client, which decodes a whole list into Go types: a single object with a number that does not fit its
// type would fail the list and the watch, and so stop all policies. This client cuts the objects out of the response and decodes
// each object separately.
type customResource struct {
	// client only reads. It uses JSON, the only format that the API server has for custom resources.
	client   *rest.RESTClient
	resource string // plural name in URLs: "multi-networkpolicies"
	decoder  decoder
}

// newCustomResource returns a client for a resource. fill sets the content of a record from an object that has a name.
func newCustomResource(config *rest.Config, gv schema.GroupVersion, resource string, fill func(*rawObject, *record)) (*customResource, error) {
	c := rest.CopyConfig(config)
	c.GroupVersion, c.APIPath = &gv, "/apis"
	c.ContentType, c.AcceptContentTypes = runtime.ContentTypeJSON, runtime.ContentTypeJSON
	d := decoder{fill}
	c.NegotiatedSerializer = negotiated{d}
	client, err := rest.RESTClientFor(c)
	if err != nil {
		return nil, fmt.Errorf("client of %s: %w", resource, err)
	}
	return &customResource{client, resource, d}, nil
}

// newPolicies returns the client for MultiNetworkPolicies.
func (s Settings) newPolicies(config *rest.Config) (*customResource, error) {
	return newCustomResource(config, mnpv1.SchemeGroupVersion, "multi-networkpolicies", s.policyRecordOf)
}

// newNADs returns the client for NetworkAttachmentDefinitions.
func (s Settings) newNADs(config *rest.Config) (*customResource, error) {
	return newCustomResource(config, netv1.SchemeGroupVersion, "network-attachment-definitions", s.nadRecordOf)
}

// list lists the objects of all namespaces, for a reflector.
func (c *customResource) list(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
	// Not a plain `return c.read(…)`: a nil *recordList would become a runtime.Object that is not nil.
	list, err := c.read(ctx, metav1.NamespaceAll, o)
	if err != nil {
		return nil, err
	}
	return list, nil
}

// read lists the objects of a namespace, or of all namespaces if it is empty.
func (c *customResource) read(ctx context.Context, namespace string, o metav1.ListOptions) (*recordList, error) {
	answer := c.client.Get().Namespace(namespace).Resource(c.resource).VersionedParams(&o, metav1.ParameterCodec).Do(ctx)
	if err := answer.Error(); err != nil {
		return nil, err
	}
	data, err := answer.Raw()
	if err != nil {
		return nil, err
	}
	return c.decoder.decodeList(data)
}

func (c *customResource) watch(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
	o.Watch = true
	return c.client.Get().Resource(c.resource).VersionedParams(&o, metav1.ParameterCodec).Watch(ctx)
}

// get reads a single object. It uses a list with a field selector, so that the agent needs no permission to get policies. It
// returns nil for an object that is gone.
func (c *customResource) get(ctx context.Context, key cache.Key) (*record, error) {
	list, err := c.read(ctx, key.Namespace, metav1.ListOptions{FieldSelector: "metadata.name=" + key.Name})
	if err != nil || len(list.Items) == 0 {
		return nil, err
	}
	return list.Items[0], nil
}

// listWatch returns the list and watch for a reflector.
func (c *customResource) listWatch() toolscache.ListerWatcher {
	return &toolscache.ListWatch{ListWithContextFunc: c.list, WatchFuncWithContext: c.watch}
}

// decoder decodes the responses of the API server for a kind. fill sets the content of a record from an object with a
// name. A field that cannot be read is a problem of that object, so fill returns no error.
type decoder struct{ fill func(*rawObject, *record) }

// Errors of responses that are no valid answer of the API, such as the page of a proxy. They fail the list or the
// watch: otherwise such an answer would count as a list without objects, and lift all policies.
var (
	errNoList    = errors.New("the answer is no list of the API")
	errNoVersion = errors.New("the object has no resource version")
)

// Decode implements runtime.Decoder for the events of a watch. It fails for an event without a resource version, since the
// watch could not go on from there. It never fails for the content of an object.
func (d decoder) Decode(data []byte, _ *schema.GroupVersionKind, into runtime.Object) (runtime.Object, *schema.GroupVersionKind, error) {
	// The client decodes the frame of an event first, then the object in the frame with another call of Decode.
	if event, ok := into.(*metav1.WatchEvent); ok {
		return event, nil, json.Unmarshal(data, event)
	}
	o, err := parseObject(data)
	gvk := schema.FromAPIVersionAndKind(o.APIVersion, o.Kind)
	// An error of the API in a watch, such as an expired version.
	if o.Kind == "Status" {
		status := &metav1.Status{}
		return status, &gvk, json.Unmarshal(data, status)
	}
	r := d.recordOf(&o, err)
	if r.version == "" {
		return nil, &gvk, errNoVersion
	}
	return r, &gvk, nil
}

// decodeList decodes the response to a list. It fails if the response is not a list, but never for the content of an item: each
// item is cut out as raw JSON first, so that even an item with too much nesting does not affect the others.
func (d decoder) decodeList(data []byte) (*recordList, error) {
	// The list is read token by token, so that each item can be cut out as raw JSON.
	list := &recordList{}
	var kind string
	in := json.NewDecoder(bytes.NewReader(data))
	err := eachIn(in, '{', func() error {
		name, err := in.Token()
		if err != nil {
			return err
		}
		switch name {
		case "kind":
			return in.Decode(&kind)
		case "metadata":
			return in.Decode(&list.ListMeta)
		case "items":
			var item json.RawMessage
			return eachIn(in, '[', func() error {
				if err := in.Decode(&item); err != nil {
					return err
				}
				list.Items = append(list.Items, d.decodeObject(item))
				return nil
			})
		}
		// Other fields, such as apiVersion, are skipped.
		return in.Decode(&json.RawMessage{})
	})
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w: %w", errNoList, err)
	// The kind of a list ends with "List". Without a version, no watch could follow the list.
	case !strings.HasSuffix(kind, "List"), list.ResourceVersion == "":
		return nil, errNoList
	}
	return list, nil
}

// eachIn reads the next object or array, and calls member at the start of each of its members. A null has no members.
func eachIn(in *json.Decoder, open json.Delim, member func() error) error {
	token, err := in.Token()
	if err != nil || token == nil {
		return err
	}
	if token != open {
		return fmt.Errorf("%v instead of %v", token, open)
	}
	for in.More() {
		if err := member(); err != nil {
			return err
		}
	}
	_, err = in.Token()
	return err
}

// decodeObject returns the record of an object. An object without a name is a problem, or a bookmark: a bookmark never
// reaches the feed.
func (d decoder) decodeObject(data []byte) *record {
	o, err := parseObject(data)
	return d.recordOf(&o, err)
}

// parseObject parses the envelope of an object. It parses the data only once, since an object may be large, and the following
// objects wait for it.
func parseObject(data []byte) (o rawObject, err error) {
	// Names of fields match exactly, as in the API server. encoding/json also takes "SPEC" for spec.
	err = kjson.UnmarshalCaseSensitivePreserveInts(data, &o)
	return o, err
}

// recordOf returns the record of an object, given the error of parseObject. With an error, the record has the problem and as
// much of the object's identity as was read.
func (d decoder) recordOf(o *rawObject, err error) *record {
	r := &record{
		Key: cache.Key{Namespace: o.Metadata.Namespace, Name: o.Metadata.Name}, uid: types.UID(o.Metadata.UID),
		version: o.Metadata.ResourceVersion, end: o.Metadata.Annotations[metav1.InitialEventsAnnotationKey] == "true",
	}
	switch {
	case err != nil:
		r.problem = policy.Words(err)
	case r.Name == "":
		r.problem = "it has no name"
	default:
		r.changed = o.lastChange()
		d.fill(o, r)
	}
	return r
}

// serializer is a decoder that the REST client accepts. It cannot encode: the client only reads.
type serializer struct{ decoder }

// Encode implements runtime.Encoder.
func (serializer) Encode(runtime.Object, io.Writer) error { return errReadOnly }

// Identifier implements runtime.Encoder.
func (serializer) Identifier() runtime.Identifier { return "read-only" }

var errReadOnly = errors.New("this client only reads")

// negotiated offers the decoder to the REST client, as JSON alone. The client asks it for a decoder by media type.
type negotiated struct{ decoder decoder }

// SupportedMediaTypes implements runtime.NegotiatedSerializer.
func (n negotiated) SupportedMediaTypes() []runtime.SerializerInfo {
	s := serializer{n.decoder}
	return []runtime.SerializerInfo{{
		MediaType: runtime.ContentTypeJSON, MediaTypeType: "application", MediaTypeSubType: "json", EncodesAsText: true, Serializer: s,
		StreamSerializer: &runtime.StreamSerializerInfo{EncodesAsText: true, Serializer: s, Framer: jsonserializer.Framer},
	}}
}

// EncoderForVersion implements runtime.NegotiatedSerializer.
func (n negotiated) EncoderForVersion(e runtime.Encoder, _ runtime.GroupVersioner) runtime.Encoder {
	return e
}

// DecoderToVersion implements runtime.NegotiatedSerializer.
func (n negotiated) DecoderToVersion(d runtime.Decoder, _ runtime.GroupVersioner) runtime.Decoder {
	return d
}
