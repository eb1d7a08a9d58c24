package cluster

import (
	"fmt"
	"io"
	"net"
	"net/http"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/streaming/pkg/httpstream"
	"k8s.io/streaming/pkg/httpstream/spdy"
)

// portForwardProtocol is the protocol of the subresource portforward of pods.
const portForwardProtocol = "portforward.k8s.io"

// SetLoopback sets the address on which a pod listens on its loopback, for the subresource portforward. All ports of the pod lead
// there. An empty address: nothing listens.
func (a *API) SetLoopback(pod, address string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.loopback == nil {
		a.loopback = map[string]string{}
	}
	a.loopback[pod] = address
}

// portForward serves the subresource of a pod of this API.
func (a *API) portForward(w http.ResponseWriter, r *http.Request) {
	ServePortForward(w, r, func(data, errors httpstream.Stream, gone <-chan bool) {
		a.forward(r.PathValue("pod"), data, errors, gone)
	})
}

// ServePortForward serves the subresource over SPDY, as kubelets do behind an API server. serve gets the two streams of a connection and
// closes them; gone is closed when the client has left. A WebSocket is refused, as by API servers before Kubernetes 1.30.
func ServePortForward(w http.ResponseWriter, r *http.Request, serve func(data, errors httpstream.Stream, gone <-chan bool)) {
	if _, err := httpstream.Handshake(r, w, []string{portForwardProtocol}); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	streams := make(chan httpstream.Stream, 2)
	conn := spdy.NewResponseUpgrader().UpgradeResponse(w, r, func(s httpstream.Stream, _ <-chan struct{}) error {
		streams <- s
		return nil
	})
	if conn == nil {
		return // the upgrader has answered
	}
	defer conn.Close() //nolint:errcheck // the client is gone
	var data, errors httpstream.Stream
	for {
		select {
		case s := <-streams:
			if s.Headers().Get(corev1.StreamType) == corev1.StreamTypeError {
				errors = s
			} else {
				data = s
			}
			if data != nil && errors != nil {
				serve(data, errors, conn.CloseChan())
				data, errors = nil, nil
			}
		case <-conn.CloseChan():
			return
		}
	}
}

// forward copies the bytes of a stream to the listener of the pod and back, until either end closes. The error stream gets the reason of a
// failure.
func (a *API) forward(pod string, data, errors httpstream.Stream, gone <-chan bool) {
	a.mu.Lock()
	address := a.loopback[pod]
	a.mu.Unlock()
	listener, err := net.Dial("tcp", address)
	if err != nil {
		fmt.Fprintf(errors, "failed to connect to localhost:%s: connection refused", data.Headers().Get(corev1.PortHeader)) //nolint:errcheck // see below
		errors.Close()                                                                                                      //nolint:errcheck // the client may be gone
		data.Reset()                                                                                                        //nolint:errcheck // see above
		return
	}
	defer listener.Close()     //nolint:errcheck // both ends are done
	go io.Copy(listener, data) //nolint:errcheck // it ends with the connection
	ended := make(chan struct{})
	defer close(ended)
	go func() {
		select {
		case <-gone:
			listener.Close() //nolint:errcheck // the copy ends
		case <-ended:
		}
	}()
	io.Copy(data, listener) //nolint:errcheck // the client may be gone
	data.Close()            //nolint:errcheck // see above
	errors.Close()          //nolint:errcheck // see above
}
