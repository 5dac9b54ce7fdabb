#!/bin/sh
# Runs each fuzz target for a while, as many at a time as there are cores.
#
#   scripts/fuzz.sh FOLDER SECONDS
#
# FOLDER holds the built targets (fuzz_*). Seeds are in tests/fuzz/seeds/<name of the target>/,
# what a run finds new stays in build/corpus/, and the input of a crash in build/crashes/.
set -eu

one() {
    target=$1 seconds=$2
    name=$(basename "$target")
    corpus=build/corpus/$name
    log=$corpus.log
    mkdir -p "$corpus"
    seeds=
    for place in "tests/fuzz/seeds/$name" "tests/fuzz/seeds/${name#fuzz_}"; do
        if [ -d "$place" ]; then seeds="$seeds $place"; fi
    done
    # shellcheck disable=SC2086
    if timeout $((seconds + 120)) "$target" -max_total_time="$seconds" -timeout=10 \
        -rss_limit_mb=2048 -print_final_stats=1 -artifact_prefix=build/crashes/ \
        "$corpus" $seeds >"$log" 2>&1 </dev/null; then
        reached=$(sed -n 's/.* cov: \([0-9]*\) ft: \([0-9]*\).*/\1 edges, \2 features/p' "$log" | tail -n 1)
        runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
        echo "fuzz: $name: $runs executions in $seconds s, $reached"
    else
        tail -n 60 "$log"
        echo "fuzz: $name: FAILED"
        exit 1
    fi
}

if [ "$1" = --one ]; then
    one "$2" "$3"
    exit
fi
mkdir -p build/crashes
targets=$(find "$1" -maxdepth 1 -type f -perm -u+x -name 'fuzz_*' | sort)
if [ -z "$targets" ]; then echo "fuzz: there is no fuzz target in $1"; exit 1; fi
printf '%s\n' "$targets" | xargs -P "$(nproc)" -I '{}' "$0" --one '{}' "$2"
