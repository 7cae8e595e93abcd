# Each verb serves people and CI alike. `make` alone lists them.

TARGET ?= request
SECONDS ?= 600

.PHONY: help run run-cluster test clients docs check bench pictures sim sim-night oracle mutants fuzz profile clean

help: ## Show these verbs
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: ## Build and run a node on 127.0.0.1:5454 (ARGS="--port 6000")
	cargo run --release --quiet -- $(ARGS)

run-cluster: ## Run a mesh of nodes on this machine until Ctrl-C (NODES=3)
	cargo build --release --quiet --bin olivia --example cluster
	cargo run --release --quiet --example cluster -- --nodes $(or $(NODES),3)

test: ## Run all tests
	cargo test --quiet

clients: ## Install Redis clients of other languages and run them on a node (ARGS=--redis: on redis-server)
	cargo build --quiet
	tests/clients/install.sh
	tests/clients/run.py $(ARGS)

docs: ## Write the pages of docs/ that come from tables in the code (docs/stats.md)
	OLIVIA_WRITE_DOCS=1 cargo test --quiet --lib documentation

check: ## Check format, lints and documentation, warnings being errors
	cargo fmt --check
	cargo clippy --all-targets --quiet -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --quiet

bench: ## Measure: load, footprint, store, mesh (minutes; ARGS=--quick for a look)
	cargo bench --quiet --bench load --bench footprint --bench items --bench store \
		--bench filter --bench mesh -- $(ARGS)

pictures: ## Draw docs/*.svg from the measured data in docs/measured, and the layers from the sources
	OLIVIA_DRAW=1 cargo test --quiet --test architecture pictures
	cargo bench --quiet --bench pictures

sim: ## Simulate a node among hostile clients, and meshes (SEEDS=5000, or OLIVIA_SIM_SEED=one)
	OLIVIA_SIM_SEEDS=$(or $(SEEDS),5000) cargo test --release --quiet --test simulation --test mesh

sim-night: ## Simulate small meshes all night, and larger ones (SEEDS=100000 of two to seven nodes)
	OLIVIA_SIM_SEEDS=$(or $(SEEDS),100000) cargo test --release --quiet --test mesh
	OLIVIA_SIM_NODES=16 OLIVIA_SIM_SEEDS=1000 cargo test --release --quiet --test mesh
	OLIVIA_SIM_NODES=64 OLIVIA_SIM_SEEDS=100 cargo test --release --quiet --test mesh
	OLIVIA_SIM_NODES=100 OLIVIA_SIM_SEEDS=40 cargo test --release --quiet --test mesh

oracle: ## Compare the store with maps over millions of operations, and its memory with the system's (OPS=5000000)
	OLIVIA_STORE_OPS=$(or $(OPS),5000000) cargo test --release --quiet --test store_oracle
	OLIVIA_STORE_VALUES=100000 cargo test --release --quiet --test resident

mutants: ## Check that the simulation finds each planted defect (SEEDS=1000 MUTANTS="name ..."; minutes)
	OLIVIA_SIM_SEEDS=$(or $(SEEDS),1000) OLIVIA_MUTANTS="$(MUTANTS)" \
		cargo test --quiet --test mutants -- --ignored --nocapture

fuzz: ## Fuzz a decoder with cargo-fuzz (TARGET=line|request|resp|frame|handshake|filter_dump|config|node SECONDS=600)
	@cargo fuzz --version >/dev/null 2>&1 || { echo 'needs: cargo install cargo-fuzz'; exit 2; }
	mkdir -p fuzz/corpus/$(TARGET)
	RUSTC_BOOTSTRAP=1 cargo fuzz run $(TARGET) fuzz/corpus/$(TARGET) tests/fuzz/corpus/$(TARGET) -- \
		-max_total_time=$(SECONDS) -dict=tests/fuzz/dictionary.txt -max_len=4096

profile: ## Build for perf: release code with symbols, in target/profiling/olivia
	cargo build --profile profiling
	@echo 'Then: perf record --call-graph fp -p $$(pgrep -x olivia)'

clean: ## Remove what was built
	cargo clean
