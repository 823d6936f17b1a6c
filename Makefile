# `make` alone lists the targets. Everything that is built goes to target/ (or CARGO_TARGET_DIR) and build/.

CARGO ?= cargo
PREFIX ?= /usr/local
LIBDIR ?= $(PREFIX)/lib
DESTDIR ?=

RELEASE := $(or $(CARGO_TARGET_DIR),target)/release
LIBRARY := $(RELEASE)/libtfckpt.so
SONAME  := libtfckpt.so.$(shell sed -n 's/^version = "\([0-9]*\)\..*/\1/p' Cargo.toml | head -n 1)
FIXTURE := tests/fixtures/tf-2.21.0/saver/model.ckpt-11

# What Python leaves behind goes to build/ too.
export PYTHONPYCACHEPREFIX := $(CURDIR)/build/pycache
export HYPOTHESIS_STORAGE_DIRECTORY := $(CURDIR)/build/hypothesis

.DEFAULT_GOAL := help
.NOTPARALLEL:

##@ Build
.PHONY: build
build: ## build the library and the program tfckpt, optimised
	$(CARGO) build --locked --release --features cli
	@# Programs linked against the library look for its SONAME.
	ln -sf libtfckpt.so $(RELEASE)/$(SONAME)

$(LIBRARY):
	$(MAKE) build

.PHONY: install
install: $(LIBRARY) ## install what was built: PREFIX, LIBDIR, DESTDIR
	scripts/install.sh "$(RELEASE)" "$(PREFIX)" "$(LIBDIR)" "$(DESTDIR)"

.PHONY: generate header
generate header: ## rewrite the generated files: C header, ABI tables, prost code
	$(CARGO) run --quiet --package codegen

.PHONY: fmt
fmt: ## format the Rust code
	$(CARGO) fmt --all

.PHONY: clean
clean: ## remove everything that was built
	$(CARGO) clean
	rm -rf build

##@ See it work
.PHONY: demo
demo: demo-tools build ## train, die, resume; then read what TensorFlow wrote
	LIB_DIR="$(RELEASE)" demo/run.sh build/demo $(FIXTURE)

.PHONY: demo-tools
demo-tools:
	@scripts/check-tools.sh --no-python

##@ Test
.PHONY: test
test: tools lint test-rust build test-abi test-c test-fake-cuda test-cuda test-cuda-asan test-interop test-gpu-tools ## run every check; what CI runs
	@echo
	@echo "All checks passed."

.PHONY: tools
tools: ## check what the tests need; as root, install what is missing
	@scripts/check-tools.sh

.PHONY: lint
lint: ## formatting and lints
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets --features cli,test-panics -- -D warnings
	$(CARGO) check --locked --no-default-features

.PHONY: test-rust
test-rust: ## Rust tests, the import rule and the freshness of generated files among them
	$(CARGO) test --locked --workspace --features cli,test-panics

.PHONY: test-abi
test-abi: build ## exported symbols, SONAME, struct layouts
	tests/abi/run.sh include "$(RELEASE)" build/abi

.PHONY: abi-update
abi-update: build ## write the struct layouts down anew: a change of the ABI
	tests/abi/run.sh include "$(RELEASE)" build/abi --update

.PHONY: test-c
test-c: build ## C99 and C++17 programs
	tests/c/run.sh include "$(RELEASE)" build/c

.PHONY: test-fake-cuda
test-fake-cuda: ## the fake CUDA driver's own tests; leaves it in build/fake_cuda
	tests/fake_cuda/run.sh build/fake_cuda

.PHONY: test-cuda
test-cuda: build ## transfers from and to GPUs, on a fake driver
	tests/cuda/run.sh include "$(RELEASE)" build/cuda

.PHONY: test-cuda-asan
test-cuda-asan: ## the same programs once, they and the library under AddressSanitizer
	scripts/sanitize.sh build/sanitize cuda

.PHONY: test-cuda-real
test-cuda-real: build ## those programs on the machine's own driver and GPUs
	tests/cuda/run.sh include "$(RELEASE)" build/cuda-real real

.PHONY: test-interop
test-interop: build ## against real TensorFlow, both ways
	scripts/venv.sh build/venv tests/interop/requirements.txt
	TFCKPT_LIBRARY="$(abspath $(LIBRARY))" build/venv/bin/python -m pytest -q -o cache_dir="$(CURDIR)/build/pytest" tests/interop

.PHONY: test-gpu-tools
test-gpu-tools: build ## what runs on a machine with a GPU, on the fake driver and small
	scripts/venv.sh build/venv tests/interop/requirements.txt
	tests/fake_cuda/build.sh build/fake_cuda
	TFCKPT_TEST_GPU=fake GPU_STEPS="interop bench" PYTHON="$(CURDIR)/build/venv/bin/python" LIB_DIR="$(RELEASE)" \
	    FAKE_DIR=build/fake_cuda tests/gpu/run.sh build/gpu
	build/venv/bin/python -S benches/gpu/render.py build/gpu/bench.json >build/gpu/bench.md

##@ On a machine with a GPU
.PHONY: gpu-bundle
gpu-bundle: build ## everything that tests/gpu/run.sh needs where there is a GPU but no Rust: build/gpu-bundle
	scripts/gpu-bundle.sh "$(RELEASE)" "$(or $(CARGO_TARGET_DIR),target)" build/gpu-bundle

.PHONY: test-gpu
test-gpu: ## run the bundle here, on the real driver; results in build/gpu
	build/gpu-bundle/tests/gpu/run.sh build/gpu

##@ Heavier checks
.PHONY: sanitize
sanitize: ## AddressSanitizer and LeakSanitizer: Rust and C tests
	scripts/sanitize.sh build/sanitize

.PHONY: fuzz
fuzz: ## fuzz each target for FUZZ_SECONDS (60)
	for target in index v1 sidecar checkpoint_state slice_spec object_graph; do scripts/fuzz.sh $$target $${FUZZ_SECONDS:-60} || exit 1; done

.PHONY: bench
bench: bench-venv build ## compare speed with TensorFlow and others, half an hour; rewrites benches/RESULTS.md and charts
	build/venv-bench/bin/python benches/bench.py --lib "$(LIBRARY)" --write

.PHONY: bench-quick
bench-quick: bench-venv build ## the same in under 3 minutes, printed only
	build/venv-bench/bin/python benches/bench.py --lib "$(LIBRARY)" --quick

.PHONY: bench-venv
bench-venv: tools
	scripts/venv.sh build/venv-bench benches/requirements.txt

.PHONY: help
help:
	@awk 'BEGIN { FS = ":.*## " } /^##@/ { printf "\n%s\n", substr($$0, 5) } /^[a-z -]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' Makefile
