package query

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/enforcement"
)

// answer is the answer of an agent.
type answer struct {
	enforcement.Header
	pods []enforcement.Pod
}

// ask sends the question to an agent and reads the answer. The context bounds the time.
func ask(ctx context.Context, agent http.RoundTripper, address string, parameters url.Values) (*answer, error) {
	u := url.URL{Scheme: "http", Host: address, Path: enforcement.Path, RawQuery: parameters.Encode()}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	response, err := agent.RoundTrip(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close() //nolint:errcheck // the answer is complete, or an error is returned
	switch response.StatusCode {
	case http.StatusOK:
		a, err := readAnswer(response.Body)
		if err != nil && ctx.Err() != nil {
			err = errors.New("no answer in time")
		}
		return a, err
	case http.StatusNotFound:
		return nil, errors.New("the agent is of a version without this question")
	}
	return nil, fmt.Errorf("the agent answers with status %s", response.Status)
}

// readAnswer reads the values of an answer to its end. An answer that is cut off is an error.
func readAnswer(body io.Reader) (*answer, error) {
	in := json.NewDecoder(body)
	a := &answer{}
	if err := in.Decode(&a.Header); err != nil {
		return nil, fmt.Errorf("read the answer: %w", err)
	}
	for {
		// A pod has a name, and the end has a number of pods.
		var value struct {
			enforcement.Pod
			Pods *int `json:"pods"`
		}
		if err := in.Decode(&value); err != nil {
			return nil, fmt.Errorf("the answer is cut off after %d pods: %w", len(a.pods), err)
		}
		if value.Pods != nil {
			return a, nil
		}
		a.pods = append(a.pods, value.Pod)
	}
}
