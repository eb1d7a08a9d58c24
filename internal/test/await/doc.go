// Package await lets tests wait for conditions and for log lines.
//
//	That(condition) ─► polls until the condition holds, or fails the test
//	NoError(try)    ─► the same for programs in hack, which have no test
//	code under test ─► Log.Logger() ─► lines ─► Log.With(parts) ─► test
package await
