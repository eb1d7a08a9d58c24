package informers

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/spelling"
)

// mostUnknown is the number of unknown fields that an error names.
const mostUnknown = 5

// unknownFields returns an error that names the fields of an object which its Go type lacks, with the likely right names.
// The API server drops unknown fields or refuses them. In a file, a misspelled "ports" would allow all ports.
func unknownFields(data any, t reflect.Type) error {
	found := appendUnknown(nil, data, t, "")
	if len(found) == 0 {
		return nil
	}
	text := strings.Join(found[:min(len(found), mostUnknown)], "; ")
	if more := len(found) - mostUnknown; more > 0 {
		text += fmt.Sprintf("; and %d more", more)
	}
	return fmt.Errorf("unknown field %s", text)
}

// decodesItself is the type of values whose JSON does not follow from their Go type, such as quantities.
var decodesItself = reflect.TypeFor[json.Unmarshaler]()

// appendUnknown appends the unknown fields of a value at a path. It passes over a value of a wrong type, since the decoder
// reports it.
func appendUnknown(found []string, data any, t reflect.Type, path string) []string {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if reflect.PointerTo(t).Implements(decodesItself) {
		return found
	}
	switch data := data.(type) {
	case []any:
		if t.Kind() == reflect.Slice {
			for i, item := range data {
				found = appendUnknown(found, item, t.Elem(), fmt.Sprintf("%s[%d]", path, i))
			}
		}
	case map[string]any:
		if t.Kind() == reflect.Struct {
			return appendUnknownOf(found, data, fieldsOf(t), path)
		}
	}
	return found
}

// appendUnknownOf appends the unknown fields of a struct. The order is that of the names, so that equal files give equal errors.
func appendUnknownOf(found []string, data map[string]any, fields map[string]reflect.Type, path string) []string {
	for _, name := range slices.Sorted(maps.Keys(data)) {
		at := strings.TrimPrefix(path+"."+name, ".")
		if t, ok := fields[name]; ok {
			found = appendUnknown(found, data[name], t, at)
			continue
		}
		if best := spelling.Nearest(name, slices.Sorted(maps.Keys(fields))); best != "" {
			at += ", did you mean " + best + "?"
		}
		found = append(found, at)
	}
	return found
}

// fieldsOf returns the types of a struct's fields by their names in JSON.
func fieldsOf(t reflect.Type) map[string]reflect.Type {
	fields := map[string]reflect.Type{}
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case name == "" && f.Anonymous:
			maps.Copy(fields, fieldsOf(f.Type)) // inline, as in JSON
		case name != "" && name != "-":
			fields[name] = f.Type
		}
	}
	return fields
}
