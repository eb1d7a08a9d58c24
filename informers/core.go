package informers

import (
	"context"
	"fmt"
	"net/url"
	"time"

	mnpv1 "github.com/k8snetworkplumbingwg/multi-networkpolicy/pkg/apis/k8s.cni.cncf.io/v1beta1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	k8sserializer "k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
)

// Core is a client of the core API for the four kinds that the program uses: pods, namespaces, Events and nodes. It speaks
// protobuf unless the config says otherwise. The methods are safe for concurrent use.
//
// It replaces the generated clientset, which links the types and clients of every API group: a quarter of the binary.
type Core struct{ client *rest.RESTClient }

// NewCore returns a client of the core API. It does not connect yet.
func NewCore(config *rest.Config) (*Core, error) {
	gv := corev1.SchemeGroupVersion
	scheme := runtime.NewScheme()
	scheme.AddKnownTypes(gv, &corev1.Pod{}, &corev1.PodList{}, &corev1.Namespace{}, &corev1.NamespaceList{}, &corev1.Event{}, &corev1.Node{})
	metav1.AddToGroupVersion(scheme, gv)

	c := rest.CopyConfig(config)
	c.GroupVersion, c.APIPath = &gv, "/api"
	c.NegotiatedSerializer = leanPods{k8sserializer.NewCodecFactory(scheme).WithoutConversion()}
	if c.UserAgent == "" {
		c.UserAgent = rest.DefaultKubernetesUserAgent()
	}
	client, err := rest.RESTClientFor(c)
	if err != nil {
		return nil, fmt.Errorf("client of the core API: %w", err)
	}
	return &Core{client}, nil
}

// CreateEvent creates an Event in its namespace.
func (c *Core) CreateEvent(ctx context.Context, event *corev1.Event) error {
	return c.client.Post().UseProtobufAsDefault().Namespace(event.Namespace).Resource("events").Body(event).Do(ctx).Error()
}

// Node reads a node.
func (c *Core) Node(ctx context.Context, name string) (*corev1.Node, error) {
	node := &corev1.Node{}
	err := c.client.Get().UseProtobufAsDefault().Resource("nodes").Name(name).Do(ctx).Into(node)
	return node, err
}

// PatchNode changes a node by a JSON patch (RFC 6902).
func (c *Core) PatchNode(ctx context.Context, name string, patch []byte) error {
	return c.client.Patch(types.JSONPatchType).UseProtobufAsDefault().Resource("nodes").Name(name).Body(patch).Do(ctx).Error()
}

// Pods lists the pods of a namespace.
func (c *Core) Pods(ctx context.Context, namespace string, o metav1.ListOptions) (*corev1.PodList, error) {
	list := &corev1.PodList{}
	err := c.read("pods", o).Namespace(namespace).Do(ctx).Into(list)
	return list, err
}

// Policies returns the JSON of the policies of a namespace, or of all namespaces if it is empty, as a list of the API.
func (c *Core) Policies(ctx context.Context, namespace string, o metav1.ListOptions) ([]byte, error) {
	path := []string{"/apis", mnpv1.SchemeGroupVersion.String()}
	if namespace != "" {
		path = append(path, "namespaces", namespace)
	}
	return c.client.Get().AbsPath(append(path, "multi-networkpolicies")...).VersionedParams(&o, metav1.ParameterCodec).Do(ctx).Raw()
}

// PortForward returns the URL of the subresource portforward of a pod.
func (c *Core) PortForward(namespace, pod string) *url.URL {
	return c.client.Post().Resource("pods").Namespace(namespace).Name(pod).SubResource("portforward").URL()
}

func (c *Core) listPods(ctx context.Context, o metav1.ListOptions) (*corev1.PodList, error) {
	list := &corev1.PodList{}
	err := c.read("pods", o).Do(ctx).Into(list)
	return list, err
}

func (c *Core) watchPods(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
	o.Watch = true
	return c.read("pods", o).Watch(ctx)
}

func (c *Core) listNamespaces(ctx context.Context, o metav1.ListOptions) (*corev1.NamespaceList, error) {
	list := &corev1.NamespaceList{}
	err := c.read("namespaces", o).Do(ctx).Into(list)
	return list, err
}

func (c *Core) watchNamespaces(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
	o.Watch = true
	return c.read("namespaces", o).Watch(ctx)
}

// read returns the request for a list or a watch of all objects of a resource.
func (c *Core) read(resource string, o metav1.ListOptions) *rest.Request {
	r := c.client.Get().UseProtobufAsDefault().Resource(resource).VersionedParams(&o, metav1.ParameterCodec)
	if o.TimeoutSeconds != nil {
		r.Timeout(time.Duration(*o.TimeoutSeconds) * time.Second)
	}
	return r
}
