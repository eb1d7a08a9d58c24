package command

import (
	"errors"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache/policy"
)

// list is the value of a flag with several values, separated by commas. It trims blanks around a value: with a blank after a
// comma, a network would otherwise not be isolated. If a flag is given several times, the values are appended.
// A value counts once: the completion of a shell parses the command line twice.
type list struct {
	items *[]string
	given bool // the flag was given, so the default is replaced
	none  bool // the word none stands for the empty list
}

// addList adds a flag with the content of items as its default.
// short is a letter, or empty for a flag without a short form.
func addList(flags *pflag.FlagSet, items *[]string, name, short, usage string) {
	flags.VarP(&list{items: items}, name, short, usage)
}

// addListOrNone is addList for a flag whose default some users want to switch off: none stands for the empty list.
func addListOrNone(flags *pflag.FlagSet, items *[]string, name, usage string) {
	flags.Var(&list{items: items, none: true}, name, usage+"; none: no value")
}

// Set implements pflag.Value. pflag calls it for each occurrence of the flag; the first call drops the default. An
// empty value is an error: it is likely a variable that is not set.
func (l *list) Set(text string) error {
	if !l.given {
		*l.items, l.given = nil, true
	}
	switch text = strings.TrimSpace(text); {
	case text == "":
		return errors.New("the value is empty")
	case text == "none" && l.none:
		return nil
	}
	for item := range strings.SplitSeq(text, ",") {
		item = strings.TrimSpace(item)
		if item == "" {
			return errors.New("a value between the commas is empty")
		}
		if !slices.Contains(*l.items, item) {
			*l.items = append(*l.items, item)
		}
	}
	return nil
}

// Type implements pflag.Value.
func (*list) Type() string { return "strings" }

// String implements pflag.Value, for the default in the help.
func (l *list) String() string {
	if l.items == nil || len(*l.items) == 0 {
		return ""
	}
	return "[" + strings.Join(*l.items, ",") + "]"
}

// limitValue is the value of the flag --limit. It may be given several times.
// The text has the form NAME=N, such as policy-rules=2000.
type limitValue struct{ limits *policy.Limits }

// Set implements pflag.Value. The name is a name of a limit, see policy.Limits.
func (l limitValue) Set(text string) error {
	// Blanks around the name and the number are ignored, as in lists.
	name, number, found := strings.Cut(text, "=")
	value, err := strconv.Atoi(strings.TrimSpace(number))
	if !found || err != nil {
		return errors.New("must be NAME=N")
	}
	return l.limits.Set(strings.TrimSpace(name), value)
}

// Type implements pflag.Value.
func (limitValue) Type() string { return "NAME=N" }

// String implements pflag.Value.
func (limitValue) String() string { return "" }
