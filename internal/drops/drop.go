package drops

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/terminal"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/tracing"
)

// Verdict says what became of a packet.
type Verdict string

// The verdicts. An audited packet has passed: the policies that would drop it are in audit mode.
const (
	Dropped Verdict = "dropped"
	Audited Verdict = "audited"
)

// Drop is a packet that no policy allows. Its JSON form is the output of drops --output json, and must stay compatible.
type Drop struct {
	Time      time.Time      `json:"time"`
	Namespace string         `json:"namespace"`
	Pod       string         `json:"pod"`
	Direction string         `json:"direction"`
	Interface string         `json:"interface"`
	Packet    tracing.Packet `json:"packet"`
	Verdict   Verdict        `json:"verdict"`
	// Policies are policies that isolate the interface, as NAMESPACE/NAME. MorePolicies is the number of those beyond cache.MaxReported.
	Policies     []string `json:"policies"`
	MorePolicies int      `json:"morePolicies,omitempty"`
}

// Print writes the packet as a line.
func (d Drop) Print(out io.Writer, asJSON bool) error {
	if asJSON {
		e := json.NewEncoder(out)
		e.SetEscapeHTML(false)
		return e.Encode(d)
	}
	line := fmt.Sprintf("%s %s %s/%s: %s, %s on %s; isolated by %s", d.Time.Format("15:04:05.000"), strings.ToUpper(string(d.Verdict)),
		d.Namespace, d.Pod, d.Packet.String(), d.Direction, d.Interface, d.PolicyText())
	_, err := fmt.Fprintln(out, terminal.Line(line)) // the creator of the pod chooses the name of the interface
	return err
}

// PolicyText lists the policies.
func (d Drop) PolicyText() string {
	text := strings.Join(d.Policies, ", ")
	if d.MorePolicies > 0 {
		text += fmt.Sprintf(" and %d more", d.MorePolicies)
	}
	return text
}

// Filter selects packets. The zero value selects all.
type Filter struct {
	Namespace string // of the pod; empty: any
	Pod       string // name of the pod; empty: any
}

// matches reports whether the filter selects the packet.
func (f Filter) matches(d *Drop) bool {
	return (f.Namespace == "" || f.Namespace == d.Namespace) && (f.Pod == "" || f.Pod == d.Pod)
}
