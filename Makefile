# All that a machine needs beside Go is installed by the targets themselves (Debian's packages, Go modules).

GOLANGCI_LINT_VERSION := v2.15.0
BIN := $(CURDIR)/bin

.PHONY: all apply arch soak picture man build test conformance race lint e2e tenants demo bench bench-docs scale fuzz kernels image release site clean tools

all: build

build:
	CGO_ENABLED=0 go build -trimpath -o $(BIN)/multi-networkpolicy-nftables .

# Everything that needs no cluster: kernel tests with real packets included. They run as root, or else in a user
# namespace that the test makes for itself.
test: tools
	go vet ./...
	cd hack/bench/measure && go vet ./...
	go test -timeout 20m ./...

# Random clusters for DURATION, with real packets. A fault prints its seed, and the smallest case that shows it.
DURATION ?= 4m
conformance: tools
	go test ./internal/command -run '^TestConformanceRandom$$' -count 1 -timeout 0 -v -conformance.duration $(DURATION)

# Random changes with packets in flight, and random clusters beside them, for SOAK. It prints a line each minute.
SOAK ?= 1h
soak: tools
	go test ./internal/command -run '^TestConformanceRandom$$' -count 1 -timeout 0 -v -conformance.duration $(SOAK) & oracle=$$!; \
	go test ./internal/agent -run '^TestSoak$$' -count 1 -timeout 0 -v -soak.duration $(SOAK) -soak.round 1m; soak=$$?; \
	wait $$oracle && exit $$soak

# The race detector needs a C compiler. Tests without goroutines that share anything run in make test only, where they take a fifth of the
# time: those of hack and manifests, random tests of pure functions, and large tables. So do the test of a memory limit,
# and the faults that random clusters must find: other random clusters run the same agents.
UNSHARED := TestStepsAreSafe|TestStepsFromForeign|TestPlanLeadsToWant|TestFilledTable|TestManyRules|TestRulePlanWithRepeats|TestAlignRulesIsLinear|TestHeapAtLimits|FuzzWorld|TestWays|TestExplainWorlds|TestDiffWorlds|TestConformanceFindsFaults|TestMemoryLimit
race: tools
	CGO_ENABLED=1 go test -race -timeout 20m -skip '^($(UNSHARED))$$' . ./cache/... ./cmd/... ./engine/... ./expr/... ./informers/... ./internal/... ./sets/...

lint: $(BIN)/golangci-lint-$(GOLANGCI_LINT_VERSION)
	$< run ./...
	cd hack/bench/measure && $< run ./...

# E2E holds the flags, such as -migration.
e2e:
	go run ./hack/e2e $(E2E)

# The manifests with each component and each pair, against a real API server in dry runs. It needs the API server of make e2e.
apply:
	go run ./hack/apply

# The attacks of a hostile tenant, against a real API server and a real agent. TENANTS holds the flags.
tenants: tools
	go run ./hack/tenants $(TENANTS)

# Tests that need no kernel, as programs for arm64 and for s390x, which is big-endian. qemu-user runs them, without netlink: tests that
# need a lab are skipped, and ^Example$$ makes a lab itself. Then the kubectl plugin for macOS and Windows: it is built and vetted, not
# run. Its flags and platforms are those of TestRelease, so that both share the build cache: a platform takes two minutes of CPU time.
EMULATED := CGO_ENABLED=0 MULTI_NETWORKPOLICY_NO_LABS=1 go test -short -skip '^Example$$'
arch:
	@hack/tools.sh qemu-aarch64=qemu-user qemu-s390x=qemu-user
	GOARCH=arm64 $(EMULATED) -exec qemu-aarch64 ./sets ./expr/... ./engine/nfnl ./engine/packet ./cache/policy ./cache/labelindex ./cache/explain
	GOARCH=s390x $(EMULATED) -exec qemu-s390x ./sets ./expr/... ./engine/nfnl ./engine/packet
	for p in darwin/arm64 windows/amd64; do export CGO_ENABLED=0 GOOS=$${p%/*} GOARCH=$${p#*/}; \
	go build -trimpath -tags grpcnotrace -o /dev/null ./cmd/kubectl-mnp && \
	go vet -trimpath -tags grpcnotrace ./cmd/kubectl-mnp ./expr/bytecode || exit 1; done

demo:
	go run . demo

# The README's picture of the demo.
picture:
	go run . demo | go run ./hack/picture > docs/demo.svg

# Man pages, in section 8.
man:
	go run ./hack/man $(BIN)/man

# The documentation as a static site, which the workflow site.yml publishes.
site:
	go run ./hack/site $(BIN)/site

# What a change costs: this agent, the kernel's own part, and the ways of others. BENCH holds the flags.
bench: tools
	go run ./hack/bench $(BENCH)

# The same, into the documents.
bench-docs: tools
	go run ./hack/bench -write docs/performance.md -chart docs/latency.svg $(BENCH)
	go run ./hack/scale -parts events,burst,idle -write docs/performance.md
	go run ./hack/scale -pods 1000,10000,100000,1000000 -memory 2GiB -write docs/scale.md -chart docs/scale.svg
	go run ./hack/scale -parts api -load 1h -write docs/scale.md
	go run ./hack/scale -parts enforcement -write docs/scale.md

# An agent in clusters of up to 100,000 pods. SCALE holds the flags.
scale: tools
	go run ./hack/scale -most 600 $(SCALE)

image:
	hack/image/build.sh

# All files of a release, see docs/release.md: make release VERSION=v1.2.3
release:
	go run ./hack/release $(VERSION)

# Each fuzz target for FUZZTIME.
FUZZTIME ?= 30s
fuzz:
	hack/fuzz.sh $(FUZZTIME)

# The kernel tests on older kernels, in QEMU. KERNELS holds the flags and the packages. With one CPU the machine's clock counts
# instructions, so that a busy host makes no test time out. The test that is left out tests the oracle, not the kernel.
KERNELS ?= -cpus 1 -skip '^TestConformanceFindsFaults$$'
kernels:
	go run ./hack/kernels $(KERNELS)

tools:
	@hack/tools.sh
	@hack/promtool.sh $(BIN)

$(BIN)/golangci-lint-$(GOLANGCI_LINT_VERSION):
	GOBIN=$(BIN) go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_LINT_VERSION)
	mv $(BIN)/golangci-lint $@

clean:
	rm -rf $(BIN)
