package query

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/transport/spdy"
	"k8s.io/streaming/pkg/httpstream"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/enforcement"
)

// answer is the answer of an agent.
type answer struct {
	enforcement.Header
	pods []enforcement.Pod
}

// forwarder reaches a port on loopback of a pod, as kubectl port-forward does, but without a local port.
type forwarder struct {
	config *rest.Config
	port   uint16
}

// ask sends the question to a pod. The context bounds the time.
func (f *forwarder) ask(ctx context.Context, forward *url.URL, parameters url.Values) (*answer, error) {
	conn, err := f.connect(ctx, forward)
	if err != nil {
		return nil, err
	}
	defer conn.Close()                                      //nolint:errcheck // the answer is complete, or an error is returned
	defer context.AfterFunc(ctx, func() { conn.Close() })() //nolint:errcheck // the reads fail
	data, refusal, err := f.streams(conn)
	if err != nil {
		return nil, err
	}
	a, err := exchange(data, f.port, parameters)
	switch {
	case ctx.Err() != nil:
		return nil, errors.New("no answer in time")
	case err != nil:
		select {
		case text := <-refusal:
			if text != "" {
				return nil, errors.New(text)
			}
		case <-time.After(time.Second):
		}
		return nil, err
	}
	return a, nil
}

// connect upgrades a request to a connection with streams: over a WebSocket, or over SPDY if the server or a proxy before it refuses
// that. The API server asks for the verb get of the subresource for the former, and for create for the latter.
func (f *forwarder) connect(ctx context.Context, forward *url.URL) (httpstream.Connection, error) {
	overWebSocket, err := portforward.NewSPDYOverWebsocketDialerForStreaming(forward, f.config)
	if err != nil {
		return nil, err
	}
	transport, upgrader, err := spdy.RoundTripperFor(f.config)
	if err != nil {
		return nil, err
	}
	overSPDY := spdy.NewDialerForStreaming(upgrader, &http.Client{Transport: transport}, http.MethodPost, forward)
	dialer := portforward.NewFallbackDialerForStreaming(overWebSocket, overSPDY, func(err error) bool {
		return httpstream.IsUpgradeFailure(err) || httpstream.IsHTTPSProxyError(err)
	})
	type result struct {
		conn httpstream.Connection
		err  error
	}
	done := make(chan result, 1)
	go func() {
		conn, _, err := dialer.Dial(portforward.PortForwardProtocolV1Name)
		done <- result{conn, err}
	}()
	select {
	case r := <-done:
		return r.conn, r.err
	case <-ctx.Done():
		// The connection is closed if it comes later.
		go func() {
			if r := <-done; r.err == nil {
				r.conn.Close() //nolint:errcheck // nobody uses it
			}
		}()
		return nil, errors.New("no connection in time")
	}
}

// streams opens the streams for the port. refusal gets the error of the node, or an empty text at the end of the connection.
func (f *forwarder) streams(conn httpstream.Connection) (data httpstream.Stream, refusal <-chan string, err error) {
	header := http.Header{}
	header.Set(corev1.StreamType, corev1.StreamTypeError)
	header.Set(corev1.PortHeader, strconv.Itoa(int(f.port)))
	header.Set(corev1.PortForwardRequestIDHeader, "0")
	errorStream, err := conn.CreateStream(header)
	if err != nil {
		return nil, nil, fmt.Errorf("port-forward: %w", err)
	}
	errorStream.Close() //nolint:errcheck // nothing is written to it
	text := make(chan string, 1)
	go func() {
		message, _ := io.ReadAll(io.LimitReader(errorStream, 4096)) //nolint:errcheck // the part that was read is the message
		text <- strings.TrimSpace(string(message))
	}()
	header.Set(corev1.StreamType, corev1.StreamTypeData)
	data, err = conn.CreateStream(header)
	if err != nil {
		return nil, nil, fmt.Errorf("port-forward: %w", err)
	}
	return data, text, nil
}

// exchange sends an HTTP request over a stream and reads the answer.
func exchange(stream io.ReadWriter, port uint16, parameters url.Values) (*answer, error) {
	address := url.URL{Scheme: "http", Host: fmt.Sprintf("127.0.0.1:%d", port), Path: enforcement.Path, RawQuery: parameters.Encode()}
	request, err := http.NewRequest(http.MethodGet, address.String(), nil) //nolint:noctx // the caller closes the stream
	if err != nil {
		return nil, err
	}
	request.Close = true
	if err := request.Write(stream); err != nil {
		return nil, fmt.Errorf("send the question: %w", err)
	}
	response, err := http.ReadResponse(bufio.NewReader(stream), request)
	if err != nil {
		return nil, fmt.Errorf("read the answer: %w", err)
	}
	defer response.Body.Close() //nolint:errcheck // the connection is closed too
	switch response.StatusCode {
	case http.StatusOK:
		return readAnswer(response.Body)
	case http.StatusNotFound:
		return nil, errors.New("the agent is of a version without this question")
	}
	return nil, fmt.Errorf("the agent answers with status %s", response.Status)
}

// readAnswer reads the values of an answer to its end. An answer that is cut off is an error.
func readAnswer(body io.Reader) (*answer, error) {
	in := json.NewDecoder(body)
	a := &answer{}
	if err := in.Decode(&a.Header); err != nil {
		return nil, fmt.Errorf("read the answer: %w", err)
	}
	for {
		// A pod has a name, and the end has a number of pods.
		var value struct {
			enforcement.Pod
			Pods *int `json:"pods"`
		}
		if err := in.Decode(&value); err != nil {
			return nil, fmt.Errorf("the answer is cut off after %d pods: %w", len(a.pods), err)
		}
		if value.Pods != nil {
			return a, nil
		}
		a.pods = append(a.pods, value.Pod)
	}
}
