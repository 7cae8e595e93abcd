#!/usr/bin/env bash
# Puts planted defects back, one at a time, into a copy of the tree, and demands that the simulation of
# whole meshes finds each of them. Prints how many seeds that took.
#
#   tests/mutants/run.sh [patch ...]        all of them, if none is named
#   SEEDS=1000                              within so many seeds
#
# The copy and what is built of it lie under target/mutants. Not here: whether the patches still apply,
# which `cargo test --test mutants` says in no time.
set -euo pipefail
cd "$(dirname "$0")/../.."
seeds=${SEEDS:-1000}
tree=$PWD/target/mutants/tree
if [ $# -eq 0 ]; then
    set -- tests/mutants/*.patch
fi
# Most of the time goes into building, not into running.
export CARGO_TARGET_DIR=$PWD/target/mutants/build
export CARGO_PROFILE_RELEASE_LTO=false CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 CARGO_INCREMENTAL=1
export CARGO_PROFILE_RELEASE_OPT_LEVEL=1
export OLIVIA_SIM_SEEDS=$seeds RUST_BACKTRACE=0
unset OLIVIA_SIM_SEED OLIVIA_SIM_NODES OLIVIA_SIM_ALL OLIVIA_SIM_TRACE
rm -rf "$tree"
mkdir -p "$tree"
cp -r Cargo.toml Cargo.lock olivia.toml src tests benches "$tree"

missed=0
for mutant in "$@"; do
    name=$(basename "$mutant" .patch)
    rm -rf "$tree/src"
    cp -r src "$tree/src"
    # The program is not needed, and takes a while to link.
    echo 'fn main() {}' >"$tree/src/main.rs"
    patch --silent --no-backup-if-mismatch -d "$tree" -p1 -i "$PWD/$mutant"
    log=$PWD/target/mutants/$name.log
    if ! (cd "$tree" && cargo test --release --quiet --test mesh --no-run) >"$log" 2>&1; then
        echo "$name: does not build; see $log"
        missed=$((missed + 1))
        continue
    fi
    status=0
    (cd "$tree" && timeout 600 cargo test --release --quiet --test mesh) >"$log" 2>&1 || status=$?
    found=$(grep -a -m 1 -o '^seed [0-9]*: .*' "$log" | cut -c 1-110 || true)
    if [ "$status" -eq 0 ]; then
        echo "$name: NOT FOUND in $seeds seeds"
        missed=$((missed + 1))
    elif [ "$status" -eq 124 ]; then
        echo "$name: found, since it hangs"
    else
        echo "$name: found, ${found:-by a crash}"
    fi
done
if [ "$missed" -gt 0 ]; then
    echo "$missed not found"
    exit 1
fi
