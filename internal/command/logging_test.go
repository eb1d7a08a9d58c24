package command

import (
	"bytes"
	"encoding/json"
	"errors"
	"testing"

	"github.com/go-logr/logr"
	"github.com/spf13/pflag"
	"k8s.io/klog/v2"
)

// With --logging-format=json, each line of the log is a JSON object, with a field for each key and value.
func TestJSONLog(t *testing.T) {
	var o loggingOptions
	flags := pflag.NewFlagSet("agent", pflag.ContinueOnError)
	o.addFlags(flags)
	if err := flags.Parse([]string{"--logging-format=json", "-v=1"}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(klog.ClearLogger)
	var out bytes.Buffer
	ctx, err := o.setUp(t.Context(), &out)
	if err != nil {
		t.Fatal(err)
	}
	log := logr.FromContextOrDiscard(ctx).WithValues("pod", "shop/web")
	log.Info("Policies enforced", "sets", 3)
	log.Error(errors.New("refused"), "Policies are not up to date")
	log.V(1).Info("Shown")
	log.V(2).Info("Not shown")
	var got []map[string]any
	for d := json.NewDecoder(&out); d.More(); {
		line := map[string]any{}
		if err := d.Decode(&line); err != nil {
			t.Fatal(err)
		}
		got = append(got, line)
	}
	if len(got) != 3 || got[0]["pod"] != "shop/web" || got[0]["msg"] != "Policies enforced" || got[0]["sets"] != 3.0 ||
		got[1]["err"] != "refused" || got[1]["level"] != "ERROR" {
		t.Errorf("%v", got)
	}
}
