// Command mutants measures the tests. It breaks the product in a hundred places, one at a time, and prints which test notices.
//
//	sources ─► go/ast: all places ─► seed: some of them ─► go test -overlay: the package, then its importers ─► a row for each
//
//	go run ./hack/mutants                           # 100 places of the packages whose tests are fast
//	go run ./hack/mutants -n 20 ./sets ./cache/...  # 20 places of some packages; only these packages' tests run
//
// A survivor is a place where no test failed. Either a test is missing, or the change has no effect that anybody can see.
package main
