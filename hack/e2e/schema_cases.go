package main

import "strings"

// invalidPolicies are specs that the CRD refuses. The message is a part of the API server's answer, which must tell a
// user the field and the reason.
// The specs are flow-style YAML. A number at a limit has a case on each side: here beyond it, in validPolicies within
// it.
var invalidPolicies = []struct{ name, spec, message string }{
	{"no podSelector", `{policyTypes: [Ingress]}`, "spec.podSelector: Required value"},
	{"an unknown field", `{podSelector: {}, ingres: []}`, `unknown field "spec.ingres"`},
	{"to in an ingress rule", `{podSelector: {}, ingress: [{to: []}]}`, `unknown field "spec.ingress[0].to"`},
	{"a rule that is not in a list", `{podSelector: {}, ingress: {from: []}}`, `unknown field "spec.ingress.from"`},
	{"an object as the list of rules", `{podSelector: {}, ingress: {}}`, "spec.ingress in body must be of type array"},
	{"501 ingress rules", `{podSelector: {}, ingress: ` + list(501, "{}") + `}`, "spec.ingress: Too many: 501: must have at most 500 items"},
	{"501 egress rules", `{podSelector: {}, egress: ` + list(501, "{}") + `}`, "spec.egress: Too many: 501: must have at most 500 items"},

	{"a policy type in lower case", `{podSelector: {}, policyTypes: [ingress]}`,
		`spec.policyTypes[0]: Unsupported value: "ingress": supported values: "Ingress", "Egress"`},
	{"three policy types", `{podSelector: {}, policyTypes: [Ingress, Egress, Ingress]}`, "spec.policyTypes: Too many: 3"},

	{"port 0", ports(`{port: 0}`), "spec.ingress[0].ports[0].port in body should be greater than or equal to 1"},
	{"port 65536", ports(`{port: 65536}`), "spec.ingress[0].ports[0].port in body should be less than or equal to 65535"},
	{"a negative port", ports(`{port: -80}`), "ports[0].port in body should be greater than or equal to 1"},
	{"half a port", ports(`{port: 80.5}`), "ports[0].port in body must be of type integer,string"},
	{"port 0 in quotes", ports(`{port: "0"}`), `spec.ingress[0].ports[0].port: Invalid value: "0"`},
	{"a range as a port", ports(`{port: "80-90"}`), `spec.ingress[0].ports[0].port: Invalid value: "80-90"`},
	{"a port name in upper case", ports(`{port: HTTP}`), `spec.ingress[0].ports[0].port: Invalid value: "HTTP"`},
	{"a port name with an underscore", ports(`{port: my_port}`), `spec.ingress[0].ports[0].port: Invalid value: "my_port"`},
	{"a port name that ends with a hyphen", ports(`{port: http-}`), `spec.ingress[0].ports[0].port: Invalid value: "http-"`},
	{"an empty port name", ports(`{port: ""}`), `spec.ingress[0].ports[0].port: Invalid value: ""`},
	{"a port name of 16 letters", ports(`{port: abcdefghijklmnop}`), "spec.ingress[0].ports[0].port: Too long"},
	{"an egress port 70000", `{podSelector: {}, egress: [{}, {ports: [{port: 70000}]}]}`, "spec.egress[1].ports[0].port in body should be less than"},
	{"endPort 65536", ports(`{port: 1, endPort: 65536}`), "ports[0].endPort in body should be less than or equal to 65535"},
	{"endPort 0", ports(`{port: 1, endPort: 0}`), "ports[0].endPort in body should be greater than or equal to 1"},
	{"endPort in quotes", ports(`{port: 1, endPort: "2"}`), "ports[0].endPort in body must be of type integer"},
	{"endPort below port", ports(`{port: 80, endPort: 79}`), "endPort must not be less than port"},
	{"endPort without port", ports(`{endPort: 80}`), "endPort needs the field port"},
	{"endPort with a port name", ports(`{port: http, endPort: 90}`), "endPort needs a port that is a number without quotes"},
	{"endPort with a port in quotes", ports(`{port: "80", endPort: 90}`), "endPort needs a port that is a number without quotes"},
	{"an unknown protocol", ports(`{protocol: ICMP}`), `ports[0].protocol: Unsupported value: "ICMP": supported values: "TCP", "UDP", "SCTP"`},
	{"1001 ports", ports(strings.Repeat("{port: 1}, ", 1001)), "spec.ingress[0].ports: Too many: 1001: must have at most 1000 items"},

	{"an empty peer", peers(`{}`), "a peer needs a podSelector, a namespaceSelector or an ipBlock"},
	{"an ipBlock with a podSelector", peers(`{ipBlock: {cidr: 10.0.0.0/8}, podSelector: {}}`), "a peer has an ipBlock or a podSelector, not both"},
	{"an ipBlock with a namespaceSelector", peers(`{ipBlock: {cidr: 10.0.0.0/8}, namespaceSelector: {}}`),
		"a peer has an ipBlock or a namespaceSelector, not both"},
	{"an ipBlock with a podSelector, of egress", `{podSelector: {}, egress: [{to: [{ipBlock: {cidr: 10.0.0.0/8}, podSelector: {}}]}]}`,
		"a peer has an ipBlock or a podSelector, not both"},
	{"an ipBlock without cidr", peers(`{ipBlock: {except: [10.0.0.0/8]}}`), "spec.ingress[0].from[0].ipBlock.cidr: Required value"},
	{"an address as a cidr", peers(`{ipBlock: {cidr: 10.0.0.1}}`), `ipBlock.cidr in body must be of type cidr: "10.0.0.1"`},
	{"a prefix of 33 bits", peers(`{ipBlock: {cidr: 10.0.0.0/33}}`), `ipBlock.cidr in body must be of type cidr: "10.0.0.0/33"`},
	{"an IPv6 prefix of 129 bits", peers(`{ipBlock: {cidr: "fd00::/129"}}`), `ipBlock.cidr in body must be of type cidr: "fd00::/129"`},
	{"an empty cidr", peers(`{ipBlock: {cidr: ""}}`), "ipBlock.cidr in body must be of type cidr"},
	{"a name as an except", peers(`{ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16, gateway]}}`),
		`spec.ingress[0].from[0].ipBlock.except[1] in body must be of type cidr: "gateway"`},
	{"5001 peers", peers(strings.Repeat("{podSelector: {}}, ", 5001)), "spec.ingress[0].from: Too many: 5001: must have at most 5000 items"},
	{"5001 excepts", peers(`{ipBlock: {cidr: 10.0.0.0/8, except: ` + list(5001, "10.1.0.0/16") + `}}`), "ipBlock.except: Too many: 5001"},

	{"a label with a space", `{podSelector: {matchLabels: {app: my app}}}`, `spec.podSelector.matchLabels.app: Invalid value: "my app"`},
	{"a label that is no string", `{podSelector: {matchLabels: {app: true}}}`, "spec.podSelector.matchLabels.app in body must be of type string"},
	{"a label of 64 letters", `{podSelector: {matchLabels: {app: ` + strings.Repeat("a", 64) + `}}}`, "spec.podSelector.matchLabels.app: Too long"},
	{"an unknown operator", expression(`{key: a, operator: Equals, values: [b]}`),
		`matchExpressions[0].operator: Unsupported value: "Equals": supported values: "In", "NotIn", "Exists", "DoesNotExist"`},
	{"no operator", expression(`{key: a}`), "spec.podSelector.matchExpressions[0].operator: Required value"},
	{"no key", expression(`{operator: Exists}`), "spec.podSelector.matchExpressions[0].key: Required value"},
	{"a key with a space", expression(`{key: a b, operator: Exists}`), `spec.podSelector.matchExpressions[0].key: Invalid value: "a b"`},
	{"In without values", expression(`{key: a, operator: In}`), "spec.podSelector.matchExpressions[0].values: Required value"},
	{"NotIn with empty values", expression(`{key: a, operator: NotIn, values: []}`), "matchExpressions[0].values in body should have at least 1 items"},
	{"Exists with values", expression(`{key: a, operator: Exists, values: [b]}`), "matchExpressions[0].values: Too many: 1: must have at most 0 items"},
	{"DoesNotExist with values, of a peer", peers(`{namespaceSelector: {matchExpressions: [{key: a, operator: DoesNotExist, values: [b]}]}}`),
		"spec.ingress[0].from[0].namespaceSelector.matchExpressions[0].values: Too many: 1"},
	{"a value with a slash", expression(`{key: a, operator: In, values: [b, c/d]}`), `matchExpressions[0].values[1]: Invalid value: "c/d"`},
	{"101 expressions", expression(strings.Repeat("{key: a, operator: Exists}, ", 101)), "spec.podSelector.matchExpressions: Too many: 101"},
	{"1001 values", expression(`{key: a, operator: In, values: ` + list(1001, "b") + `}`), "matchExpressions[0].values: Too many: 1001"},
}

// validPolicies are unusual specs that the CRD accepts: the limits of each rule from inside.
var validPolicies = []struct{ name, spec string }{
	{"no spec", ``},
	{"only a podSelector", `{podSelector: {}}`},
	{"empty lists", `{podSelector: {matchLabels: {}, matchExpressions: []}, ingress: [], egress: [], policyTypes: []}`},
	{"rules with empty lists", `{podSelector: {}, ingress: [{from: [], ports: []}, {}], egress: [{to: [], ports: []}, {}]}`},
	{"egress rules with policyTypes Ingress", `{podSelector: {}, egress: [{}], policyTypes: [Ingress]}`},
	{"a policy type twice", `{podSelector: {}, policyTypes: [Egress, Egress]}`},
	{"500 rules each way", `{podSelector: {}, ingress: ` + list(500, "{}") + `, egress: ` + list(500, "{}") + `}`},

	{"an empty port", ports(`{}`)},
	{"a protocol without a port", ports(`{protocol: SCTP}`)},
	{"protocols in lower case", ports(`{protocol: tcp}, {protocol: udp}, {protocol: sctp}`)},
	{"the first and the last port", ports(`{port: 1}, {port: 65535}`)},
	{"a range of one port", ports(`{port: 65535, endPort: 65535}`)},
	{"all ports as a range", ports(`{port: 1, endPort: 65535}`)},
	{"ports in quotes", ports(`{port: "80"}, {port: "65535"}`)},
	{"port names", ports(`{port: http}, {port: a}, {port: 8080-web}, {port: 1-2-c-3}, {port: 0a}, {port: abcdefghijklmno}`)},
	{"the same port twice", ports(`{port: 80}, {port: 80, protocol: TCP}`)},
	{"1000 ports", ports(strings.Repeat("{port: 1}, ", 1000))},

	{"both selectors", peers(`{podSelector: {}, namespaceSelector: {}}`)},
	{"empty selectors", peers(`{podSelector: {}}, {namespaceSelector: {}}`)},
	{"all addresses", peers(`{ipBlock: {cidr: 0.0.0.0/0}}, {ipBlock: {cidr: "::/0"}}`)},
	{"single addresses", peers(`{ipBlock: {cidr: 10.0.0.1/32}}, {ipBlock: {cidr: "fd00::1/128"}}`)},
	{"a cidr with host bits", peers(`{ipBlock: {cidr: 10.1.2.3/8}}, {ipBlock: {cidr: "FD00:0:0:0:0:0:0:1/64"}}`)},
	{"an IPv4 cidr written as IPv6", peers(`{ipBlock: {cidr: "::ffff:10.0.0.0/104"}}`)},
	{"an except that is the whole cidr", peers(`{ipBlock: {cidr: 10.0.0.0/8, except: [10.0.0.0/8]}}`)},
	{"an empty list of excepts", peers(`{ipBlock: {cidr: 10.0.0.0/8, except: []}}`)},
	{"an except outside its cidr", peers(`{ipBlock: {cidr: 10.0.0.0/8, except: [192.168.0.0/16]}}`)},
	{"5000 peers", peers(strings.Repeat("{podSelector: {}}, ", 5000))},
	{"5000 excepts", peers(`{ipBlock: {cidr: 10.0.0.0/8, except: ` + list(5000, "10.1.0.0/16") + `}}`)},

	{"all operators", expression(`{key: a, operator: In, values: [b]}, {key: a, operator: NotIn, values: [c, ""]}, ` +
		`{key: d, operator: Exists}, {key: e, operator: DoesNotExist, values: []}`)},
	{"keys with prefixes", expression(`{key: app.kubernetes.io/name, operator: Exists}, {key: A_b.c-D, operator: Exists}, {key: a/0, operator: Exists}`)},
	{"labels without values", `{podSelector: {matchLabels: {app: ""}}}`},
	{"a label of 63 letters", `{podSelector: {matchLabels: {example.com/app: ` + strings.Repeat("a", 63) + `}}}`},
	{"a key of 317 letters", expression(`{key: ` + strings.Repeat("a", 253) + "/" + strings.Repeat("b", 63) + `, operator: Exists}`)},
}

// ports returns the spec of a policy with ingress ports.
// The helpers put items into the smallest policy that can have them.
func ports(items string) string { return `{podSelector: {}, ingress: [{ports: [` + items + `]}]}` }

// peers returns the spec of a policy with ingress peers.
func peers(items string) string { return `{podSelector: {}, ingress: [{from: [` + items + `]}]}` }

// expression returns the spec of a policy that selects pods by expressions.
func expression(items string) string { return `{podSelector: {matchExpressions: [` + items + `]}}` }

// list returns a list of n equal items.
// n is chosen at, or just beyond, a limit of the CRD.
func list(n int, item string) string { return "[" + strings.Repeat(item+", ", n) + "]" }
