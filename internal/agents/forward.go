package agents

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/transport/spdy"
	"k8s.io/streaming/pkg/httpstream"
)

// Address is the host and port of requests to an agent.
func (c *Client) Address() string { return fmt.Sprintf("127.0.0.1:%d", c.port) }

// Transport returns a transport for requests to the agent in a pod. It reaches the port on loopback as kubectl port-forward does, but
// without a local port. Each request has a connection of its own, which ends with the context of the request or when the body of the
// answer is closed.
func (c *Client) Transport(pod string) http.RoundTripper {
	return &transport{Client: c, forward: c.Core.PortForward(c.Namespace, pod)}
}

type transport struct {
	*Client
	forward *url.URL // of the subresource portforward
}

// RoundTrip implements http.RoundTripper.
func (t *transport) RoundTrip(request *http.Request) (*http.Response, error) {
	ctx := request.Context()
	conn, err := t.connect(ctx, t.forward)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() }) //nolint:errcheck // the reads fail
	end := func() error {
		stop()
		return conn.Close()
	}
	response, err := t.exchange(conn, request)
	if err != nil {
		end() //nolint:errcheck // the other error counts
		if ctx.Err() != nil {
			err = errors.New("no answer in time")
		}
		return nil, err
	}
	response.Body = &body{ReadCloser: response.Body, end: end}
	return response, nil
}

// body is the body of an answer, whose end is the end of its connection.
type body struct {
	io.ReadCloser
	end func() error
}

// Close ends the connection. It does not read the rest of the body.
func (b *body) Close() error { return b.end() }

// exchange sends the request and reads the answer up to its body. The reason of the node counts more than the error of a stream.
func (t *transport) exchange(conn httpstream.Connection, request *http.Request) (*http.Response, error) {
	refusal, err := t.errorStream(conn)
	if err != nil {
		return nil, err
	}
	response, err := t.ask(conn, request)
	if err == nil {
		return response, nil
	}
	select {
	case text := <-refusal:
		if text != "" {
			return nil, errors.New(text)
		}
	case <-time.After(time.Second):
	}
	return nil, err
}

// ask sends the request over a stream and reads the answer up to its body.
func (t *transport) ask(conn httpstream.Connection, request *http.Request) (*http.Response, error) {
	data, err := conn.CreateStream(t.header(corev1.StreamTypeData))
	if err != nil {
		return nil, fmt.Errorf("port-forward: %w", err)
	}
	request = request.Clone(request.Context())
	request.Close = true
	if err := request.Write(data); err != nil {
		return nil, fmt.Errorf("send the question: %w", err)
	}
	response, err := http.ReadResponse(bufio.NewReader(data), request)
	if err != nil {
		return nil, fmt.Errorf("read the answer: %w", err)
	}
	return response, nil
}

// connect upgrades a request to a connection with streams: over a WebSocket, or over SPDY if the server or a proxy before it refuses
// that. The API server asks for the verb get of the subresource for the former, and for create for the latter.
func (c *Client) connect(ctx context.Context, forward *url.URL) (httpstream.Connection, error) {
	overWebSocket, err := portforward.NewSPDYOverWebsocketDialerForStreaming(forward, c.config)
	if err != nil {
		return nil, err
	}
	transport, upgrader, err := spdy.RoundTripperFor(c.config)
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

// errorStream opens the stream of errors for the port. The channel gets the error of the node, or an empty text at the end of the
// connection.
func (c *Client) errorStream(conn httpstream.Connection) (<-chan string, error) {
	stream, err := conn.CreateStream(c.header(corev1.StreamTypeError))
	if err != nil {
		return nil, fmt.Errorf("port-forward: %w", err)
	}
	stream.Close() //nolint:errcheck // nothing is written to it
	text := make(chan string, 1)
	go func() {
		message, _ := io.ReadAll(io.LimitReader(stream, 4096)) //nolint:errcheck // the part that was read is the message
		text <- strings.TrimSpace(string(message))
	}()
	return text, nil
}

// header returns the header of a stream for the port.
func (c *Client) header(streamType string) http.Header {
	header := http.Header{}
	header.Set(corev1.StreamType, streamType)
	header.Set(corev1.PortHeader, strconv.Itoa(int(c.port)))
	header.Set(corev1.PortForwardRequestIDHeader, "0")
	return header
}
