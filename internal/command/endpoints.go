package command

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
	"github.com/spf13/pflag"
)

// Where the agent can be asked. It is on the host's network, so that what listens on more than loopback is there for
// everybody who can reach the node.
const (
	defaultMetricsAddress = "127.0.0.1:10349"
	defaultHealthAddress  = "127.0.0.1:10356"
)

const (
	headerTimeout = 5 * time.Second
	endTimeout    = time.Second // for answers under way when the agent stops
)

// endpointOptions are the flags about HTTP.
type endpointOptions struct {
	metrics, health string
	profiles        bool
}

func (o *endpointOptions) addFlags(flags *pflag.FlagSet) {
	flags.StringVar(&o.metrics, "metrics-bind-address", defaultMetricsAddress, "`address` and port of /metrics; empty: none")
	flags.StringVar(&o.health, "health-bind-address", defaultHealthAddress, "`address` and port of /livez and /readyz; empty: none")
	flags.BoolVar(&o.profiles, "enable-pprof", false, "serve profiles of the agent at /debug/pprof/, beside /metrics")
}

// endpoint is an address that answers.
type endpoint struct {
	listener net.Listener
	server   *http.Server
}

// listen opens the addresses, so that a bad one is known before anything else is done.
func (o *endpointOptions) listen(m *metrics, h *health) (endpoints []*endpoint, err error) {
	for _, e := range []struct {
		flag, address string
		handler       http.Handler
	}{
		{"metrics-bind-address", o.metrics, metricsHandler(m, o.profiles)},
		{"health-bind-address", o.health, h.handler()},
	} {
		if e.address == "" {
			continue
		}
		l, err := net.Listen("tcp", e.address)
		if err != nil {
			closeAll(endpoints)
			err = fmt.Errorf("--%s %q: %w", e.flag, e.address, err)
			if _, _, bad := net.SplitHostPort(e.address); bad != nil {
				err = usageError{err}
			}
			return nil, err
		}
		endpoints = append(endpoints, &endpoint{l, &http.Server{Handler: e.handler, ReadHeaderTimeout: headerTimeout}})
	}
	return endpoints, nil
}

// closeAll closes endpoints, whether they have been run or not.
func closeAll(endpoints []*endpoint) {
	for _, e := range endpoints {
		e.listener.Close() //nolint:errcheck // nobody has been there, or it is closed already
	}
}

// run answers until the context ends.
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
		log.Error(err, "Nothing answers here any more; policies are enforced as before")
	}
	if !stop() {
		<-done
	}
}

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
