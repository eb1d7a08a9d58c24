package packet_test

import (
	"encoding/hex"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine/packet"
)

const (
	v4Head = "45000028 00004000 4006 0000 0a090003 0a090001" // TCP
	v6Head = "60000000 0020 %s 40 fd090000000000000000000000000003 fd090000000000000000000000000001"
	tcp    = "8235 0050 00000000 00000000 50020000 00000000"
)

// v6 returns the header of an IPv6 packet with a next header.
func v6(next string) string { return strings.Replace(v6Head, "%s", next, 1) }

// TestParse: ports are read behind options and extension headers, and never from a later fragment or a packet that is cut off.
func TestParse(t *testing.T) {
	v4 := packet.Headers{Source: netip.MustParseAddr("10.9.0.3"), Destination: netip.MustParseAddr("10.9.0.1"), Protocol: 6}
	six := packet.Headers{Source: netip.MustParseAddr("fd09::3"), Destination: netip.MustParseAddr("fd09::1"), Protocol: 6}
	withPorts := func(h packet.Headers) packet.Headers {
		h.HasPorts, h.SourcePort, h.DestinationPort = true, 0x8235, 80
		return h
	}
	icmp := six
	icmp.Protocol, icmp.HasType, icmp.Type = 58, true, 128
	for name, c := range map[string]struct {
		packet string
		want   packet.Headers
	}{
		"IPv4":                      {v4Head + tcp, withPorts(v4)},
		"IPv4 with an option":       {"46" + v4Head[2:] + "94040000" + tcp, withPorts(v4)},
		"first fragment of IPv4":    {strings.Replace(v4Head, "4000 40", "2000 40", 1) + tcp, withPorts(v4)},
		"later fragment of IPv4":    {strings.Replace(v4Head, "4000 40", "2001 40", 1) + tcp, v4},
		"IPv4, cut off":             {v4Head + "8235", v4},
		"IPv6":                      {v6("06") + tcp, withPorts(six)},
		"hop-by-hop, destination":   {v6("00") + "3c00 000000000000" + "0601 0000000000000000000000000000" + tcp, withPorts(six)},
		"first fragment of IPv6":    {v6("2c") + "0600 0001 00000000" + tcp, withPorts(six)},
		"later fragment of IPv6":    {v6("2c") + "0600 0009 00000000" + tcp, six},
		"extension header, cut":     {v6("00") + "0600 0000", func() packet.Headers { h := six; h.Protocol = 0; return h }()},
		"ICMPv6":                    {v6("3a") + "8000 0000", icmp},
		"no header":                 {"45000028", packet.Headers{}},
		"neither IPv4 nor IPv6":     {"00" + v4Head[2:] + tcp, packet.Headers{}},
		"a header length of zero":   {"40" + v4Head[2:], v4},
		"extension, longer than it": {v6("00") + "06ff 000000000000" + tcp, six},
	} {
		b, err := hex.DecodeString(strings.ReplaceAll(c.packet, " ", ""))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		got := packet.Parse(b)
		if name == "a header length of zero" { // whatever its ports are
			got.HasPorts, got.SourcePort, got.DestinationPort = false, 0, 0
		}
		if diff := cmp.Diff(c.want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// FuzzParse: nothing that a pod sends stops the agent.
func FuzzParse(f *testing.F) {
	for _, text := range []string{v4Head + tcp, v6("00") + "0600 000000000000" + tcp} {
		b, err := hex.DecodeString(strings.ReplaceAll(text, " ", ""))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(_ *testing.T, b []byte) { packet.Parse(b) })
}
