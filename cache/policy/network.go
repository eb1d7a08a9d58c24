package policy

import (
	"cmp"
	"strings"
	"unicode"
)

// CompareKeys orders keys by namespace and name.
func CompareKeys(a, b Key) int {
	return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
}

// ParseNetwork reads "namespace/name", or "name" in the namespace given; blanks around both parts are ignored. It
// refuses a text that could never name a network, and nothing else: networks without a NetworkAttachmentDefinition have
// free names.
func ParseNetwork(s, namespace string) (Key, bool) {
	name := strings.TrimSpace(s)
	if before, after, found := strings.Cut(name, "/"); found {
		namespace, name = strings.TrimSpace(before), strings.TrimSpace(after)
	}
	if namespace == "" || name == "" || strings.ContainsFunc(namespace, isNotInName) || strings.ContainsFunc(name, isNotInName) {
		return Key{}, false
	}
	return Key{Namespace: namespace, Name: name}, true
}

// isNotInName rejects an '@' as well: it appends the name of an interface in the annotation that requests networks. As
// part of a network's name it would match nothing, without a word.
func isNotInName(r rune) bool {
	return r == '/' || r == '@' || r == ',' || unicode.IsSpace(r) || unicode.IsControl(r)
}
