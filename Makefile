# Each verb serves people and CI alike. `make` alone lists them.

.PHONY: help run test check bench pictures sim fuzz profile clean

help: ## Show these verbs
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: ## Build and run a node on 127.0.0.1:5454 (ARGS="--port 6000")
	cargo run --release --quiet -- $(ARGS)

test: ## Run all tests
	cargo test --quiet

check: ## Check format, lints and documentation, warnings being errors
	cargo fmt --check
	cargo clippy --all-targets --quiet -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --quiet

bench: ## Measure: the load table, the footprint, the store (minutes)
	cargo bench --quiet

pictures: ## Draw docs/*.svg from the measured data in docs/measured
	cargo bench --quiet --bench pictures

sim: ## Simulate a node among hostile clients (SEEDS=5000, or OLIVIA_SIM_SEED=one)
	OLIVIA_SIM_SEEDS=$(or $(SEEDS),5000) cargo test --release --quiet --test simulation -- --nocapture

fuzz: ## Fuzz a decoder with cargo-fuzz (TARGET=request SECONDS=600)
	RUSTC_BOOTSTRAP=1 cargo fuzz run $(or $(TARGET),request) -- -max_total_time=$(or $(SECONDS),600)

profile: ## Build for perf: release code with symbols, in target/profiling/olivia
	cargo build --profile profiling
	@echo 'Then: perf record --call-graph fp -p $$(pgrep -x olivia)'

clean: ## Remove what was built
	cargo clean
