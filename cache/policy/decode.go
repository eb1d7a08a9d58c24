package policy

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	kjson "sigs.k8s.io/json"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine"
)

// spec is the spec of a policy with undecoded fields. The published schema of the API is loose, so each field may hold any JSON.
// A field that is absent is empty.
type spec struct {
	PodSelector json.RawMessage `json:"podSelector"`
	PolicyTypes json.RawMessage `json:"policyTypes"`
	Ingress     rawList         `json:"ingress"`
	Egress      rawList         `json:"egress"`
}

// rawList is JSON that should be a list.
type rawList json.RawMessage

// UnmarshalJSON keeps the bytes.
func (l *rawList) UnmarshalJSON(b []byte) error {
	*l = append((*l)[:0], b...)
	return nil
}

// isEmptyList reports whether the list is absent, null or empty. A value of another type counts as not empty, since its
// author meant something by it.
func (l rawList) isEmptyList() bool {
	list, ok := decodeList(json.RawMessage(l))
	return ok && len(list) == 0
}

// rules returns the list of rules of a direction.
// It is nil if the field is absent.
func (s spec) rules(d engine.Direction) json.RawMessage {
	if d == engine.Ingress {
		return json.RawMessage(s.Ingress)
	}
	return json.RawMessage(s.Egress)
}

// rawRule is a rule of either direction with undecoded fields. An ingress rule has From, an egress rule has To.
type rawRule struct {
	Ports json.RawMessage `json:"ports"`
	From  json.RawMessage `json:"from"`
	To    json.RawMessage `json:"to"`
}

// peers returns the list of peers of a direction.
// The other field is ignored, as an ingress rule has no To.
func (r rawRule) peers(d engine.Direction) json.RawMessage {
	if d == engine.Ingress {
		return r.From
	}
	return r.To
}

// decodeSpec reads the fields of a spec. For a spec that is not an object, it returns invalid fields, so that the policy isolates
// every pod of the namespace in both directions.
func decodeSpec(raw json.RawMessage, ps *Problems) spec {
	var s spec
	if isNull(raw) {
		return s
	}
	if err := decode(raw, &s); err != nil {
		ps.Add("spec", "cannot be decoded, so the policy isolates every pod of its namespace: %s", clip(Words(err)))
		return spec{PodSelector: raw, PolicyTypes: raw}
	}
	return s
}

// decode reads JSON as the API server does: the names of fields are case-sensitive, and unlike in encoding/json "SPEC"
// is not spec.
func decode(raw json.RawMessage, to any) error {
	return kjson.UnmarshalCaseSensitivePreserveInts(raw, to)
}

// decodeList returns the items of a list. A null or absent list has no items. It returns false for any other value.
func decodeList(raw json.RawMessage) (items []json.RawMessage, ok bool) {
	if isNull(raw) {
		return nil, true
	}
	return items, decode(raw, &items) == nil
}

// isNull reports whether a field is null or absent.
func isNull(raw json.RawMessage) bool {
	raw = bytes.TrimSpace(raw)
	return len(raw) == 0 || string(raw) == "null"
}

// decodeNumber reads an integer, with or without quotes. It returns false for a number beyond 64 bits, which JSON and the loose
// schema allow.
func decodeNumber(raw json.RawMessage) (int64, bool) {
	text := string(bytes.TrimSpace(raw))
	var quoted string
	if decode(raw, &quoted) == nil {
		// A quoted number is read too: the loose schema lets "80" pass, and its meaning is clear.
		text = strings.TrimSpace(quoted)
	}
	n, err := strconv.ParseInt(text, 10, 64)
	return n, err == nil
}

// item returns the path of an item of a list: "spec.ingress[0]".
// Problems name fields in this form.
func item(field string, i int) string { return fmt.Sprintf("%s[%d]", field, i) }

// quoteJSON quotes a user's value in a message: a string like Quote, other values as JSON. It is a type, so that the text is made
// only if the message is formatted.
type quoteJSON json.RawMessage

// String returns the quoted text.
func (q quoteJSON) String() string {
	raw := json.RawMessage(q)
	var s string
	if !isNull(raw) && decode(raw, &s) == nil {
		return Quote(s)
	}
	return clip(string(raw))
}

// clip shortens a long text.
// The text stays valid UTF-8.
func clip(s string) string {
	if len(s) > 2*maxQuote {
		return strings.ToValidUTF8(s[:2*maxQuote], "") + "…"
	}
	return s
}
