package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/hack/apiserver"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/command"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/await"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/cluster"
)

// agentArgument makes this program run the agent, with the same code as the product, in a separate process.
const agentArgument = "agent"

// runAgent runs the agent with the arguments and returns its exit code.
func runAgent(args []string) int { return command.Main("bench", args, os.Stdout, os.Stderr) }

// wholeAgent is an agent process with its environment: an API server, a container runtime and the network namespaces of local
// pods.
// Only the network plugins and the kubelet are missing: objects say that the pods run, and the namespaces have no
// interfaces.
type wholeAgent struct {
	size
	*apiserver.Process
	*fleet
	*acks
	// objects are the objects of the API server, without the local pods
	objects objects
	client  *kubernetes.Clientset
	runtime *cluster.Runtime
	// agent is nil until it has started
	agent *exec.Cmd
}

// startWholeAgent starts everything in the order of need, and returns when all local pods have their rules. The
// caller must stop it.
func startWholeAgent(s size) (w *wholeAgent, err error) {
	dir, err := os.MkdirTemp("", "bench-")
	if err != nil {
		return nil, err
	}
	w = &wholeAgent{size: s, objects: newObjects(s)}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.stop(), os.RemoveAll(dir))
		}
	}()
	if w.Process, err = apiserver.Start(context.Background(), dir, apiserver.AlwaysAllow); err != nil {
		return w, err
	}
	if w.fleet, err = newFleet(s.Pods); err != nil {
		return w, err
	}
	// The listeners must exist before the agent writes its first batch.
	if w.acks, err = listen(w.hosts); err != nil {
		return w, err
	}
	if w.client, err = kubernetes.NewForConfig(w.Config(apiserver.Token)); err != nil {
		return w, err
	}
	if err := w.createAll(context.Background()); err != nil {
		return w, err
	}
	return w, w.startAgent()
}

// createPod creates the pod, by default on another node. It adds a container, which the API server requires.
func (w *wholeAgent) createPod(ctx context.Context, p *corev1.Pod) (*corev1.Pod, error) {
	// The API server gives the pod its own UID and refuses a pod that has one with another value.
	p = p.DeepCopy()
	p.UID = ""
	if p.Spec.NodeName == "" {
		p.Spec.NodeName = "node-2"
	}
	p.Spec.Containers = []corev1.Container{{Name: "main", Image: "none"}}
	return w.client.CoreV1().Pods(p.Namespace).Create(ctx, p, metav1.CreateOptions{})
}

// deletePod deletes the pod at once: no kubelet is there to end it.
func (w *wholeAgent) deletePod(ctx context.Context, p *corev1.Pod) error {
	now := int64(0)
	return w.client.CoreV1().Pods(p.Namespace).Delete(ctx, p.Name, metav1.DeleteOptions{GracePeriodSeconds: &now})
}

// createAll creates the objects before the agent starts, so that its first lists have them, then the container
// runtime with the sandboxes of the local pods.
func (w *wholeAgent) createAll(ctx context.Context) error {
	if err := apiserver.CreateKinds(ctx, w.client); err != nil {
		return err
	}
	for _, n := range append(w.objects.namespaces, newNamespace("local", "local")) {
		if _, err := w.client.CoreV1().Namespaces().Create(ctx, n, metav1.CreateOptions{}); err != nil {
			return err
		}
	}
	if err := w.createCustomObjects(ctx); err != nil {
		return err
	}
	if err := w.createPeers(ctx); err != nil {
		return err
	}
	w.runtime = cluster.NewRuntime(w.Path("cri.sock"))
	var sandboxes []cluster.Sandbox
	for i, h := range w.hosts {
		p, err := w.createPod(ctx, newPod("local", fmt.Sprintf("pod-%d", i), "web", node, w.podAddrs(i)...))
		if err != nil {
			return err
		}
		// The runtime must know the UID that the API server chose, as the agent compares them. The path of a
		// namespace names this process, since it says self and the agent is another process.
		sandboxes = append(sandboxes, cluster.Sandbox{
			ID: "sandbox-" + p.Name, UID: string(p.UID), Namespace: p.Namespace, Name: p.Name, CreatedAt: 1,
			Info: cluster.InfoOf(strings.Replace(h.NetNS(), "self", fmt.Sprint(os.Getpid()), 1)),
		})
	}
	w.runtime.Set(sandboxes...)
	return w.runtime.Start()
}

// createPeers creates the peers, with a few requests at the same time.
func (w *wholeAgent) createPeers(ctx context.Context) error {
	peers := make(chan *corev1.Pod)
	errs := make([]error, 8)
	var running sync.WaitGroup
	for i := range errs {
		running.Go(func() {
			for p := range peers {
				if _, err := w.createPod(ctx, p); err != nil {
					errs[i] = err
				}
			}
		})
	}
	// The other peers belong to events that are not measured here.
	for _, p := range w.objects.peers {
		if p.Namespace == "peers" {
			peers <- p
		}
	}
	close(peers)
	running.Wait()
	return errors.Join(errs...)
}

// startAgent starts the agent and returns when all local pods have their rules.
// Pods of a namespace may have more addresses here than the default limit allows. Metrics and health listen nowhere.
func (w *wholeAgent) startAgent() error {
	kubeconfig := w.Path("kubeconfig")
	if err := apiserver.WriteKubeconfig(kubeconfig, w.URL(), apiserver.Token); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	log, err := os.Create(w.Path("agent.log"))
	if err != nil {
		return err
	}
	defer log.Close()
	start := time.Now()
	w.agent = exec.Command(self, agentArgument, "--kubeconfig="+kubeconfig, "--hostname-override="+node,
		"--container-runtime-endpoint=unix://"+w.Path("cri.sock"), "--metrics-bind-address=", "--health-bind-address=",
		fmt.Sprintf("--limit=namespace-addresses=%d", manyPeers))
	w.agent.Stdout, w.agent.Stderr = log, log
	w.agent.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
	if err := w.agent.Start(); err != nil {
		return err
	}
	err = eventually(time.Minute, "all pods have rules", func() error {
		if _, ok := w.since(start); !ok {
			return errors.New("some have none")
		}
		return nil
	})
	if err != nil {
		text, _ := os.ReadFile(filepath.Clean(log.Name())) //nolint:errcheck // for the message only
		return fmt.Errorf("%w\n%.3000s", err, text)
	}
	// Otherwise the batch with the rules would count as the first change.
	time.Sleep(300 * time.Millisecond) // the batch with the sets comes before the batch with the rules
	return nil
}

// stop ends the agent first, so that it sees nothing of the end of the other parts. It works on an agent that is half
// started.
func (w *wholeAgent) stop() error {
	var errs []error
	if w.agent != nil && w.agent.Process != nil {
		errs = append(errs, w.agent.Process.Signal(unix.SIGTERM), w.agent.Wait())
	}
	if w.runtime != nil {
		w.runtime.Stop()
	}
	if w.acks != nil {
		errs = append(errs, w.acks.close())
	}
	if w.fleet != nil {
		errs = append(errs, w.fleet.close())
	}
	if w.Process != nil {
		errs = append(errs, w.Stop(), os.RemoveAll(w.Dir))
	}
	return errors.Join(errs...)
}

// eventually is [await.NoError] with a time limit.
func eventually(most time.Duration, what string, try func() error) error {
	ctx, cancel := context.WithTimeout(context.Background(), most)
	defer cancel()
	return await.NoError(ctx, what, try)
}
