// Package nft runs stock nft for tests.
//
//	test ─► Run, MustRun ─► nft in the network namespace of a host ─► output ─► WithoutOwner ─► test
package nft
