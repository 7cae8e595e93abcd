# Targets for developers and CI. `make` without a target lists them.

TARGET ?= request

.PHONY: help run run-cluster demo test clients docs check instructions bench compare pictures sim sim-night model histories oracle mutants fuzz profile perf clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# One set of cargo targets for all runs: with another set, dependencies have other features and are built again.
BUILD = cargo build --release --bin olivia --example cluster
BUILT = $(or $(CARGO_TARGET_DIR),target)/release

run: ## Build and run a node on 127.0.0.1:5454 (ARGS="--port 6000")
	$(BUILD)
	@$(BUILT)/olivia $(ARGS)

run-cluster: ## Run a mesh of nodes on this machine until Ctrl-C (NODES=3 PORT=5454)
	$(BUILD)
	@$(BUILT)/examples/cluster --nodes $(or $(NODES),3) --port $(or $(PORT),5454)

demo: ## Run a mesh with a small load, for its page in a browser, until Ctrl-C (NODES=5 PORT=5454)
	$(BUILD)
	@$(BUILT)/examples/cluster --demo --nodes $(or $(NODES),5) --port $(or $(PORT),5454)

test: ## Run all tests
	cargo test --quiet

clients: ## Install Redis clients of other languages and run them on a node (ARGS=--redis: on redis-server)
	cargo build --quiet
	tests/clients/install.sh
	tests/clients/run.py $(ARGS)

docs: ## Write the pages of docs/ that come from tables in the code, and the parts rendered from measured figures
	OLIVIA_WRITE_DOCS=1 cargo test --quiet --lib documentation
	OLIVIA_WRITE_DOCS=1 cargo test --quiet --test bench_quick documentation

check: ## Check format, lints and documentation; warnings are errors
	cargo fmt --check
	cargo clippy --all-targets --quiet -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --quiet

instructions: ## Count the instructions per GET and SET, and fail above their bounds (needs valgrind)
	cargo bench --quiet --bench instructions -- --check

bench: ## Measure: footprint, items, store, filters, mesh (minutes; ARGS=--quick for a look)
	cargo bench --quiet --bench footprint --bench items --bench store \
		--bench filter --bench mesh -- $(ARGS)

compare: SECONDS ?= 0.8
compare: ## Measure Olivia and the other servers that are installed, 20 minutes (ROUNDS=7 SECONDS=0.8 ONLY=rate,idle)
	cargo bench --quiet --bench compare -- --rounds $(or $(ROUNDS),7) --seconds $(SECONDS) \
		$(if $(ONLY),--only $(ONLY),--write) $(ARGS)

pictures: ## Draw docs/*.svg, from the measured data in docs/measured and from the sources
	OLIVIA_DRAW=1 cargo test --quiet --test architecture pictures
	cargo bench --quiet --bench pictures

sim: ## Simulate a node with hostile clients, and meshes (SEEDS=5000, or OLIVIA_SIM_SEED=one)
	OLIVIA_SIM_SEEDS=$(or $(SEEDS),5000) cargo test --release --quiet --test mesh

sim-night: ## Simulate meshes for hours, up to 100 nodes (SEEDS=100000 of two to seven nodes)
	OLIVIA_SIM_SEEDS=$(or $(SEEDS),100000) cargo test --release --quiet --test mesh
	OLIVIA_SIM_NODES=16 OLIVIA_SIM_SEEDS=1000 cargo test --release --quiet --test mesh
	OLIVIA_SIM_NODES=64 OLIVIA_SIM_SEEDS=100 cargo test --release --quiet --test mesh
	OLIVIA_SIM_NODES=100 OLIVIA_SIM_SEEDS=40 cargo test --release --quiet --test mesh

model: ## Check the protocol of one value per key state by state (8 minutes, 6 GB; docs/consistency.md)
	cargo test --release --quiet --test one_value -- --ignored --nocapture --test-threads 1

histories: SECONDS ?= 900
histories: ## Record histories of real processes under faults and check them (needs root; SECONDS=900 of each of four)
	OLIVIA_HISTORY_SECONDS=$(SECONDS) \
		cargo test --release --quiet --test history -- --nocapture --test-threads 1

oracle: ## Differential tests of the store against std maps, and of its resident memory (OPS=5000000)
	OLIVIA_STORE_OPS=$(or $(OPS),5000000) cargo test --release --quiet --test store_oracle
	OLIVIA_STORE_VALUES=100000 cargo test --release --quiet --test resident

mutants: ## Check that the simulation finds each planted defect (SEEDS=1000 MUTANTS="name ..."; minutes)
	OLIVIA_SIM_SEEDS=$(or $(SEEDS),1000) OLIVIA_MUTANTS="$(MUTANTS)" \
		cargo test --quiet --test mutants -- --ignored --nocapture

fuzz: SECONDS ?= 600
fuzz: ## Fuzz a decoder with cargo-fuzz (TARGET=line|request|resp|http|frame|handshake|config|node SECONDS=600)
	@cargo fuzz --version >/dev/null 2>&1 || { echo 'needs: cargo install cargo-fuzz'; exit 2; }
	mkdir -p fuzz/corpus/$(TARGET)
	RUSTC_BOOTSTRAP=1 cargo fuzz run $(TARGET) fuzz/corpus/$(TARGET) tests/fuzz/corpus/$(TARGET) -- \
		-max_total_time=$(SECONDS) -dict=tests/fuzz/dictionary.txt -max_len=4096

profile: ## Build for perf: release code with symbols and frame pointers, in target/perf/profiling/olivia
	RUSTFLAGS="-C force-frame-pointers=yes" cargo build --profile profiling --target-dir target/perf
	@echo 'Run target/perf/profiling/olivia, load it, then: make perf PID=its-pid'

perf: ## Profile a node under load, or a running one (PID= MIX=90/10 PIPELINE=16 TIME=10 BASE=old.data)
	@PID=$(PID) MIX=$(MIX) PIPELINE=$(PIPELINE) TIME=$(TIME) BASE=$(BASE) benches/perf.sh

clean: ## Remove build results
	cargo clean
