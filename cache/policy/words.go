package policy

import (
	"cmp"
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"time"
)

// The kinds of values in the words of YAML: by the kind of a Go type, and by the name in an error of the decoder.
var (
	wantedValues = map[reflect.Kind]string{
		reflect.String: "a string", reflect.Bool: "true or false", reflect.Slice: "a list", reflect.Map: "a map", reflect.Struct: "a map",
	}
	foundValues = map[string]string{"object": "a map", "array": "a list", "bool": "true or false"}
)

// Words returns an error of a JSON or YAML decoder in the words of a manifest, without names of Go. Users see it in Events,
// in warnings and in errors of commands.
func Words(err error) string {
	var typed *json.UnmarshalTypeError
	if errors.As(err, &typed) {
		wanted := cmp.Or(wantedValues[typed.Type.Kind()], "a number")
		value, _, _ := strings.Cut(typed.Value, " ") // "number 1.5"
		text := "must be " + wanted + ", not " + cmp.Or(foundValues[value], "a "+value)
		if typed.Field != "" {
			text = "field " + strings.TrimPrefix(typed.Field, "TypeMeta.") + " " + text
		}
		return text
	}
	var when *time.ParseError
	if errors.As(err, &when) {
		return Quote(when.Value) + " is not a time such as 2026-01-31T12:00:00Z"
	}
	text := err.Error()
	for _, prefix := range []string{"error converting YAML to JSON: ", "error unmarshaling JSON: ", "json: ", "yaml: "} {
		text = strings.TrimPrefix(text, prefix)
	}
	return yamlWords.Replace(text)
}

// yamlWords has the words for parts of an error of the YAML decoder. It reports keys that a map has twice as a list with a line for each.
var yamlWords = strings.NewReplacer("unmarshal errors:\n  ", "", "\n  ", "; ", "mapping key", "key", " already defined at ", " is also in ")
