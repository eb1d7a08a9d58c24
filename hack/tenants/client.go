package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
)

// requestPatience is how long a request may take.
// It is long, since a busy API server takes its time for large objects.
const requestPatience = 2 * time.Minute

// object is an object of the API as JSON. Attacks write objects that no Go type could hold.
type object = map[string]any

// client is a user of the API server. It sends bytes as they are.
type client struct{ http *http.Client }

// client returns a client of a user, without a rate limit of its own.
func (s *apiServer) client(user string) (*client, error) {
	transport, err := rest.TransportFor(s.Config(user))
	if err != nil {
		return nil, err
	}
	return &client{http: &http.Client{Transport: transport}}, nil
}

// The resources that the rig and the attacks write.
const (
	policies   = "apis/k8s.cni.cncf.io/v1beta1/multi-networkpolicies"
	nads       = "apis/k8s.cni.cncf.io/v1/network-attachment-definitions"
	pods       = "api/v1/pods"
	events     = "api/v1/events"
	namespaces = "api/v1/namespaces"
)

// pathOf returns the path of a resource in a namespace; an empty namespace means all, or a resource without namespaces.
func pathOf(resource, namespace string, more ...string) string {
	at := strings.LastIndex(resource, "/")
	path := "/" + resource[:at]
	if namespace != "" {
		path += "/namespaces/" + namespace
	}
	return path + resource[at:] + strings.TrimSuffix("/"+strings.Join(more, "/"), "/")
}

// Content types. Answers have the metadata of objects only: a write of a large object need not send it back.
const (
	jsonType     = "application/json"
	mergePatch   = "application/merge-patch+json"
	jsonPatch    = "application/json-patch+json"
	metadataOnly = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
	metadataList = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
)

// do sends a request and returns the answer. An answer that is not a success is a *apierrors.StatusError.
// The context of the caller and requestPatience both end it.
func (c *client) do(ctx context.Context, method, path, contentType, accept string, body []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, requestPatience)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, method, "https://127.0.0.1:"+serverPort+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", contentType)
	r.Header.Set("Accept", accept)
	answer, err := c.http.Do(r)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close() //nolint:errcheck // it was read
	data, err := io.ReadAll(answer.Body)
	if err != nil {
		return nil, err
	}
	if answer.StatusCode < 300 {
		return data, nil
	}
	// The API server describes an error in a Status.
	var status metav1.Status
	if json.Unmarshal(data, &status) != nil || status.Code == 0 {
		return nil, fmt.Errorf("%s %s: %s: %.200s", method, path, answer.Status, data)
	}
	return nil, &apierrors.StatusError{ErrStatus: status}
}

// get returns the whole object or list as JSON.
func (c *client) get(ctx context.Context, path string) ([]byte, error) {
	return c.do(ctx, http.MethodGet, path, jsonType, jsonType, nil)
}

// create creates an object and returns its UID.
// The answer has only metadata, so a large object does not travel twice.
func (c *client) create(ctx context.Context, resource, namespace string, o any) (uid string, err error) {
	body, err := encode(o)
	if err != nil {
		return "", err
	}
	data, err := c.do(ctx, http.MethodPost, pathOf(resource, namespace), jsonType, metadataOnly, body)
	if err != nil {
		return "", err
	}
	m, err := metadataOf(data)
	return m.UID, err
}

// encode returns JSON as it is, and anything else as JSON.
func encode(o any) ([]byte, error) {
	switch o := o.(type) {
	case []byte:
		return o, nil
	case string:
		return []byte(o), nil
	}
	return json.Marshal(o)
}

// merge changes the fields of an object that the patch names.
func (c *client) merge(ctx context.Context, resource, namespace, name string, patch any) error {
	_, err := c.patch(ctx, mergePatch, pathOf(resource, namespace, name), patch)
	return err
}

// patch changes an object and returns the answer.
func (c *client) patch(ctx context.Context, contentType, path string, patch any) (metadata, error) {
	body, err := encode(patch)
	if err != nil {
		return metadata{}, err
	}
	data, err := c.do(ctx, http.MethodPatch, path, contentType, metadataOnly, body)
	if err != nil {
		return metadata{}, err
	}
	return metadataOf(data)
}

// metadata is the part of an answer that the rig needs.
type metadata struct {
	UID             string `json:"uid"`
	ResourceVersion string `json:"resourceVersion"`
}

func metadataOf(answer []byte) (metadata, error) {
	var o struct {
		Metadata metadata `json:"metadata"`
	}
	err := json.Unmarshal(answer, &o)
	return o.Metadata, err
}

// remove deletes an object at once. An object that does not exist is removed already.
func (c *client) remove(ctx context.Context, resource, namespace, name string) error {
	_, err := c.do(ctx, http.MethodDelete, pathOf(resource, namespace, name)+"?gracePeriodSeconds=0", jsonType, metadataOnly, nil)
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// removeAll deletes all objects of a resource in a namespace. A namespace that does not exist has none.
// New objects may come meanwhile, and a deletion of many objects may meet a conflict, so it repeats until nothing is
// left.
func (c *client) removeAll(ctx context.Context, resource, namespace string) error {
	for {
		_, err := c.do(ctx, http.MethodDelete, pathOf(resource, namespace)+"?gracePeriodSeconds=0", jsonType, metadataList, nil)
		if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
			return err
		}
		switch n, err := c.count(ctx, resource, namespace); {
		case err != nil:
			return err
		case n == 0:
			return nil
		}
	}
}

// count returns the number of objects of a resource.
// It asks for a single item; the API server adds the number of the others to a list that it cuts off.
func (c *client) count(ctx context.Context, resource, namespace string) (int, error) {
	data, err := c.do(ctx, http.MethodGet, pathOf(resource, namespace)+"?limit=1", jsonType, metadataList, nil)
	if err != nil {
		return 0, err
	}
	var list struct {
		Metadata struct {
			RemainingItemCount int `json:"remainingItemCount"`
		} `json:"metadata"`
		Items []json.RawMessage `json:"items"`
	}
	if err := json.Unmarshal(data, &list); err != nil {
		return 0, err
	}
	return len(list.Items) + list.Metadata.RemainingItemCount, nil
}
