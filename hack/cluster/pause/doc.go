// Command pause keeps namespaces alive. It is the first process of each pod's sandbox and of the cluster itself.
//
//	orphaned children ─► SIGCHLD ─► pause: waits for each child
//	SIGINT, SIGTERM              ─► pause: exits
package main
