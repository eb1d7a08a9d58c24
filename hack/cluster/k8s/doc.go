// Command k8s is all of Kubernetes for the test cluster, in a single file. A single binary links in a fraction of the time
// of six binaries, and the cluster does not depend on the programs of the machine.
//
//	link or first argument ─► etcd
//	                       ─► kube-apiserver, kube-controller-manager, kube-scheduler
//	                       ─► kubelet
//	                       ─► kubectl
//
// The command runs the program with the name of the link that started it, or of the first argument.
package main
