// Package informers watches the objects that policies depend on and gives them to the cache. The API server and manifest
// files are two sources of the same events. Package sandbox, below this one, watches the container runtime.
//
//	API server ─► Source ─► record ─► feed ─► Sink (the cache) ─► Notify
//	files      ─►   │         │        │
//	                │         │        └─► Reporter ─► log, Events
//	                │         └ the part of an object that policies depend on, decoded by itself
//	                └ one list and watch for each kind
//
// # Invariants
//
// Cheap handlers. A handler updates the sink, reports the problems of the object and returns. It does no I/O.
//
// One object at a time. An object that cannot be decoded is a problem of that object. It never fails a list or a watch.
//
// Nothing is lost. A source that cannot be reached changes nothing: the sink keeps what it has, and the source is tried
// again, with a growing pause and a log line at each change of state, for as long as the agent runs.
//
// In sync means handled. HasSynced is true once the sink has everything that the first lists returned.
package informers
