// Package informers watches the objects that policies depend on and gives them to the cache. The API server and manifest
// files are two sources of the same events. Package sandbox, below this package, watches the container runtime.
//
//	API server ─► Source ─► record ─► feed ─► Sink (the cache) ─► Notify
//	files      ─►   │         │        │
//	                │         │        └─► Reporter ─► log, Events
//	                │         └ the part of an object that policies depend on
//	                └ a list and watch for each kind
//
// # Invariants
//
// Cheap handlers. A handler updates the sink, reports the problems of the object and returns. It does no I/O.
//
// Objects are decoded separately. An object that cannot be decoded is a problem of that object. It never fails a list or a
// watch.
//
// Nothing is lost. While a source cannot be reached, the sink keeps its objects. The informers retry with a growing pause for as
// long as the agent runs, and log the loss and the return of the source.
//
// In sync means handled. HasSynced is true when the sink has all objects of the first lists.
package informers
