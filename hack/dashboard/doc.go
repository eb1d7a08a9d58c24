// Command dashboard draws the picture of the Grafana dashboard in docs/metrics.md, from the dashboard itself and from the series of a real
// agent.
//
//	record: rig: API server, runtime, network namespaces ─► agent ─► Prometheus ─► testdata/series.json, a range for each query
//	draw:   manifests/components/prometheus/dashboard.json + testdata/series.json ─► docs/dashboard.svg
//
// The agent is the program of this repository as a process, with real tables in real network namespaces; Prometheus is Debian's. The API
// server and the runtime are those of internal/test/cluster. Recording needs root and takes ten minutes. Drawing needs neither, so a
// test compares the picture with the dashboard.
package main
