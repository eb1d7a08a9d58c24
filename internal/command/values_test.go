package command

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

func tableFlags(t *testing.T, args ...string) (*tableOptions, error) {
	t.Helper()
	var o tableOptions
	flags := pflag.NewFlagSet("agent", pflag.ContinueOnError)
	o.addFlags(flags)
	return &o, flags.Parse(args)
}

// A blank after a comma must not take a network out of isolation.
func TestListFlags(t *testing.T) {
	for _, tc := range []struct {
		args []string
		want []string
	}{
		{nil, []string{"macvlan", "ipvlan", "sriov", "host-device", "bridge", "bond", "vlan", "tap", "ipoib"}},
		{[]string{"--network-plugins=ipvlan, bridge"}, []string{"ipvlan", "bridge"}},
		{[]string{"--network-plugins", " ipvlan ", "--network-plugins", "bridge,\tmacvlan"}, []string{"ipvlan", "bridge", "macvlan"}},
	} {
		o, err := tableFlags(t, tc.args...)
		if err != nil || !slices.Equal(o.networkPlugins, tc.want) {
			t.Errorf("%q: %q, %v, want %q", tc.args, o.networkPlugins, err, tc.want)
		}
	}
	for _, text := range []string{"", " ", ",", "ipvlan,", "ipvlan,,bridge", ", bridge"} {
		if o, err := tableFlags(t, "--network-plugins="+text); err == nil {
			t.Errorf("%q is accepted as %q", text, o.networkPlugins)
		}
	}
}

func TestLimitFlag(t *testing.T) {
	o, err := tableFlags(t, "--limit", "policy-rules=7", "--limit=pod-sets = 9")
	if err != nil || o.limits.PolicyRules != 7 || o.limits.PodSets != 9 || o.limits.PodRules == 0 {
		t.Errorf("%+v, %v", o.limits, err)
	}
	for _, text := range []string{"policy-rules", "policy-rules=x", "policy-rules=0", "policy-rules=-1", "no-such-limit=1"} {
		var stdout, stderr bytes.Buffer
		if code := Main("v1", []string{"--limit", text}, &stdout, &stderr); code != 2 || strings.Count(stderr.String(), "\n") != 1 {
			t.Errorf("%q: exit code %d, %q", text, code, stderr.String())
		}
	}
}
