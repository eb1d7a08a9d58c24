// Command probe sends and answers packets, so that tests see which packets the policies allow. It runs in test pods.
//
//	dial  ── TCP, UDP ──►  serve: echo       result of each target: open, refused, timeout or error
//	flood ── UDP ───────►  count             packets of each sender, and the age of the sender
//
//	probe serve -tcp 80,8080 -udp 53
//	probe dial [-timeout 1s] [-interval 200ms] tcp://10.1.0.2:80 'udp://[fd00:1::2]:53'
//	probe flood [-timeout 1s] [-interval 1ms] [-ready] 10.1.0.2:7000
//	probe count -udp 7000
//
// serve echoes over IPv4 and IPv6. dial probes all targets at the same time and prints a line of JSON for each, in their order.
// Its exit code is 0 if all targets answer, else 1. flood sends datagrams from its first instruction on and expects no answer.
// count prints the arrivals of floods when it ends.
package main
