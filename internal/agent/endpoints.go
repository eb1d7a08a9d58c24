package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Time limits of the HTTP servers. A client that is slow or silent must not hold a connection for long.
const (
	headerTimeout = 5 * time.Second
	readTimeout   = 10 * time.Second
	writeTimeout  = 2 * time.Minute // a profile takes 30 s by default
	idleTimeout   = time.Minute
	endTimeout    = time.Second // for answers under way when the agent stops
)

// AddressError is the error of Run for an address that the agent cannot listen on. The command line tells a malformed
// address, which is a mistake of the user, from an address that is in use.
type AddressError struct {
	Option  string // "metrics" or "health"
	Address string
	Err     error
}

// Error implements error.
func (e *AddressError) Error() string {
	return fmt.Sprintf("%s address %q: %v", e.Option, e.Address, e.Err)
}

// Unwrap returns the error of the listener.
func (e *AddressError) Unwrap() error { return e.Err }

// IsMalformed reports whether the text is no address at all, so that another try cannot help.
func (e *AddressError) IsMalformed() bool {
	_, _, err := net.SplitHostPort(e.Address)
	return err != nil
}

// endpoint is a listener and its server.
type endpoint struct {
	listener net.Listener
	server   *http.Server
}

// listen opens the listeners. An empty address has no listener. After an error, no listener stays open.
// The error is an *AddressError.
func listen(config Config, metrics, health http.Handler) (endpoints []*endpoint, err error) {
	for _, e := range []struct {
		option, address string
		handler         http.Handler
	}{
		{"metrics", config.MetricsAddress, metrics},
		{"health", config.HealthAddress, health},
	} {
		if e.address == "" {
			continue
		}
		l, err := net.Listen("tcp", e.address)
		if err != nil {
			closeAll(endpoints)
			return nil, &AddressError{e.option, e.address, err}
		}
		endpoints = append(endpoints, &endpoint{l, &http.Server{
			Handler: e.handler, ReadHeaderTimeout: headerTimeout, ReadTimeout: readTimeout, WriteTimeout: writeTimeout, IdleTimeout: idleTimeout,
		}})
	}
	return endpoints, nil
}

// closeAll closes endpoints, whether they run or not.
func closeAll(endpoints []*endpoint) {
	for _, e := range endpoints {
		e.listener.Close() //nolint:errcheck // no client has connected, or it is closed already
	}
}

// run serves until the context ends, then gives answers under way endTimeout to finish. A failure of a listener ends
// only this endpoint.
func (e *endpoint) run(ctx context.Context) {
	log := logr.FromContextOrDiscard(ctx).WithValues("address", e.listener.Addr().String())
	done := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(done)
		ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), endTimeout)
		defer cancel()
		if err := e.server.Shutdown(ending); err != nil {
			log.V(1).Info("Answers were cut off", "cause", err.Error())
			e.server.Close() //nolint:errcheck // the process ends
		}
	})
	if err := e.server.Serve(e.listener); !errors.Is(err, http.ErrServerClosed) {
		log.Error(err, "Listener failed; policies are enforced as before")
	}
	// If the end of the context has started the shutdown, wait until it is over.
	if !stop() {
		<-done
	}
}

// metricsHandler serves the registry of the agent, and with profiles also net/http/pprof. The handlers are
// registered by hand, since net/http/pprof registers itself in the default mux only.
func metricsHandler(m *metrics, profiles bool) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{Registry: m.registry}))
	if profiles {
		mux.HandleFunc("GET /debug/pprof/", pprof.Index)
		mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
		mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
		mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	}
	return mux
}
