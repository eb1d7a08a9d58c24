package policy

import (
	"cmp"
	"strings"
	"unicode"
)

// CompareKeys orders keys by namespace and name.
// It returns 0 for equal keys.
func CompareKeys(a, b Key) int {
	return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
}

// ParseNetwork reads "namespace/name", or "name" for a network in the given namespace. It ignores blanks around both parts. It
// refuses only a text that cannot be the name of any network, since networks without a NetworkAttachmentDefinition may have names
// that are invalid for objects.
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

// isNotInName reports whether a name of a network must not contain the character. It includes '@', which precedes the name of an
// interface in the annotation that requests networks (name@interface): as a part of the name it would silently match no network.
func isNotInName(r rune) bool {
	return r == '/' || r == '@' || r == ',' || unicode.IsSpace(r) || unicode.IsControl(r)
}
