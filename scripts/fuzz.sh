#!/bin/sh
# Runs each fuzz target for a while.
#
#   scripts/fuzz.sh FOLDER SECONDS
#
# FOLDER holds the built targets (fuzz_*). Seeds are in tests/fuzz/seeds/<name of the target>/,
# what a run finds new stays in build/corpus/, and the input of a crash in build/crashes/.
set -eu
folder=$1 seconds=$2
failed= ran=0
mkdir -p build/crashes
for target in "$folder"/fuzz_*; do
    [ -f "$target" ] && [ -x "$target" ] || continue
    name=$(basename "$target")
    corpus=build/corpus/$name
    mkdir -p "$corpus"
    seeds=
    for place in "tests/fuzz/seeds/$name" "tests/fuzz/seeds/${name#fuzz_}"; do
        [ -d "$place" ] && seeds="$seeds $place"
    done
    ran=$((ran + 1))
    # shellcheck disable=SC2086
    if timeout $((seconds + 120)) "$target" -max_total_time="$seconds" -timeout=10 \
        -rss_limit_mb=2048 -print_final_stats=1 -artifact_prefix=build/crashes/ \
        "$corpus" $seeds >"build/corpus/$name.log" 2>&1 </dev/null; then
        cov=$(sed -n 's/.* cov: \([0-9]*\) ft: \([0-9]*\).*/\1 edges, \2 features/p' "build/corpus/$name.log" | tail -n 1)
        runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "build/corpus/$name.log")
        echo "fuzz: $name: $runs executions in $seconds s, $cov"
    else
        failed="$failed $name"
        tail -n 60 "build/corpus/$name.log"
        echo "fuzz: $name: FAILED"
    fi
done
[ "$ran" -gt 0 ] || echo "fuzz: there is no fuzz target in $folder"
if [ -n "$failed" ]; then echo "fuzz: failed:$failed"; exit 1; fi
