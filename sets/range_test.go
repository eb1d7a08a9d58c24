package sets

import (
	"net/netip"
	"testing"
)

func TestAddrRangeString(t *testing.T) {
	for _, s := range []string{
		"10.0.0.1", "10.0.0.0/31", "10.0.0.1-10.0.0.2", "10.0.0.0-10.0.0.2", "10.0.0.1-10.0.0.9",
		"10.0.0.0/24", "10.0.0.128-10.0.1.127", "0.0.0.0/0", "0.0.0.0", "255.255.255.255",
		"0.0.0.0-255.255.255.254", "128.0.0.0/1",
		"::", "::1", "::/0", "::/1", "2001:db8::/32", "2001:db8::/63", "2001:db8::/64", "2001:db8::/65",
		"2001:db8::/127", "::ffff:ffff:ffff:ffff-0:0:0:1::", "2001:db8::-2001:db8:0:2:ffff:ffff:ffff:ffff",
		"2001:db8::1-2001:db8:0:1:ffff:ffff:ffff:ffff",
	} {
		if got := parseRange(t, s).String(); got != s {
			t.Errorf("%s is printed as %s", s, got)
		}
	}
}

func TestPrefixRange(t *testing.T) {
	for in, want := range map[string]string{
		"10.1.2.3/24":               "10.1.2.0-10.1.2.255",
		"10.1.2.3/32":               "10.1.2.3-10.1.2.3",
		"10.1.2.3/0":                "0.0.0.0-255.255.255.255",
		"2001:db8::1/64":            "2001:db8::-2001:db8::ffff:ffff:ffff:ffff",
		"2001:db8::1/128":           "2001:db8::1-2001:db8::1",
		"2001:db8::/0":              "::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
		"::ffff:10.0.0.1/104":       "10.0.0.0-10.255.255.255",
		"::ffff:10.0.0.1/128":       "10.0.0.1-10.0.0.1",
		"::ffff:10.0.0.1/96":        "0.0.0.0-255.255.255.255",
		"::ffff:10.0.0.1/95":        "::fffe:0:0-::ffff:255.255.255.255",
		"::ffff:10.0.0.1/64":        "::-::ffff:ffff:ffff:ffff",
		"ffff:ffff:ffff:ffff::/64":  "ffff:ffff:ffff:ffff::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
		"2001:db8:0:0:8000::/65":    "2001:db8:0:0:8000::-2001:db8::ffff:ffff:ffff:ffff",
		"2001:db8:ffff:ffff::9/126": "2001:db8:ffff:ffff::8-2001:db8:ffff:ffff::b",
	} {
		r := PrefixRange(netip.MustParsePrefix(in))
		if got := r.From.String() + "-" + r.To.String(); got != want || !r.IsValid() {
			t.Errorf("%s is %s, want %s", in, got, want)
		}
	}
}

func TestSingle(t *testing.T) {
	for in, want := range map[string]string{
		"10.0.0.1": "10.0.0.1", "::ffff:10.0.0.1": "10.0.0.1", "::ffff:10.0.0.1%net1": "10.0.0.1",
		"fe80::1%net1": "fe80::1",
	} {
		if r := Single(netip.MustParseAddr(in)); r.String() != want || r.From != r.To {
			t.Errorf("%s is %v, want %s", in, r, want)
		}
	}
}

func TestFamily(t *testing.T) {
	for in, want := range map[string]Family{"10.0.0.1": V4, "::ffff:10.0.0.1": V4, "::1": V6, "fe80::1%net1": V6} {
		if got := FamilyOf(netip.MustParseAddr(in)); got != want {
			t.Errorf("FamilyOf(%s) is %v", in, got)
		}
	}
	if got := FamilyOf(netip.Addr{}); got != 0 {
		t.Errorf("an invalid address is of family %d", got)
	}
	if V4.String() != "v4" || V6.String() != "v6" || Family(0).String() != "invalid" {
		t.Error("families have other names")
	}
}
