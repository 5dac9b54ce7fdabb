#!/bin/bash
# What `make test` does not reach: other interpreters, sanitizers, the gate, the wheel.
#
#   scripts/test-more.sh          what each interpreter and each build can change: TEST_PART, whose
#                                 tables are in tests/matrix.py
#   scripts/test-more.sh --all    everything on each of them, in the long forms (`make test-all`)
#
# Each phase has a time limit, three times what it takes on a machine of two cores; all of them run
# even when one fails; what cannot run here says why.
set -u
cd "$(dirname "$0")/.."

all=${1:+1}
failed=0 table=()
logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT

# The last phase failed: what went wrong is said again, shortly, at the end, where it is looked for.
remember() {
    {
        printf -- '--- %s: %s\n' "$1" "$2"
        grep -hE '^(FAILED|ERROR|E  |SUMMARY: )|ERROR: .*Sanitizer|WARNING: Thread' "$logs/phase" |
            cut -c 1-200 | awk '!seen[$0]++' | head -n 20
        printf '...\n'
        tail -n 6 "$logs/phase" | cut -c 1-200
    } >>"$logs/failures"
}

# phase SECONDS NAME COMMAND...
phase() {
    local limit=$1 name=$2 start=$SECONDS status outcome
    shift 2
    printf '\n=== %s ===\n' "$name"
    # A pipe would be waited for until all have left it that the phase has left running.
    exec 3> >(exec tee "$logs/phase")
    local tee=$!
    timeout --kill-after=30 "$limit" "$@" </dev/null >&3 2>&1 3>&-
    status=$?
    exec 3>&-
    timeout 5 tail --pid=$tee -f /dev/null
    case $status in
        0) outcome=passed ;;
        124 | 137) outcome="FAILED: not done after $limit s" ;;
        *) outcome="FAILED: exit status $status" ;;
    esac
    if [ "$outcome" != passed ]; then
        failed=1
        remember "$name" "$outcome"
    fi
    table+=("$(printf '%5d s  %-42s %s' $((SECONDS - start)) "$name" "$outcome")")
    printf -- '--- %s: %s, %d s\n' "$name" "$outcome" $((SECONDS - start))
}

skip() {
    printf '\n=== %s ===\nskipped: %s\n' "$1" "$2"
    table+=("$(printf '%5d s  %-42s %s' 0 "$1" "skipped: $2")")
}

tag_of() {
    "$1" -c 'import sys, sysconfig
print("cp%d%d%s" % (*sys.version_info[:2], "t" if sysconfig.get_config_var("Py_GIL_DISABLED") else ""))' 2>/dev/null
}

# What measures has been run by make test, as has what is about C code alone.
jobs=${TEST_JOBS:-$((2 * $(nproc)))}
tests="-n $jobs --dist loadfile --no-loadscope-reorder tests --ignore tests/bench --ignore tests/compliance"
if [ -n "$all" ]; then
    export TEST_ALL=1 TEST_MORE=1
    interpreter=(env) asan=(env) scale=8
else
    # The examples use of the core what the other tests use.
    tests+=" --ignore tests/examples"
    interpreter=(env TEST_PART=interpreter) asan=(env TEST_PART=asan) scale=1
fi

[ -z "$all" ] || phase 1800 "fuzz targets, 60 s each" make fuzz FUZZ_SECONDS=60

# Whether Debian's Pythons can be had; sets $reason when not.
debian() {
    local log status
    log=$(mktemp)
    timeout 1200 scripts/get-debian-pythons.sh 2> >(tee "$log" >&2) </dev/null >/dev/null
    status=$?
    [ $status = 0 ] || reason="$reason; $(tail -n 1 "$log")"
    rm -f "$log"
    return $status
}

own=$(tag_of python3)
seen=" $own "
for version in 3.11 3.12 3.13 3.14 3.15; do
    name="Python $version"
    reason="there is no python$version on PATH"
    found= within=()
    # pyenv's names answer only for the version that is selected; its own folder has them all.
    for candidate in "python$version" "${PYENV_ROOT:-$HOME/.pyenv}/versions/$version".*/bin/python3; do
        path=$(command -v "$candidate" 2>/dev/null) || continue
        tag=$(tag_of "$path")
        if [ -z "$tag" ]; then
            reason="$candidate does not run"
        elif [ "$tag" = "cp${version/./}" ]; then
            found=$path
            break
        fi
    done
    if [ -z "$found" ] && [[ "3.14 3.15" == *$version* ]] && debian; then
        found=python$version tag=cp${version/./} within=(scripts/in-debian.sh)
    fi
    if [ -z "$found" ]; then
        [ "cp${version/./}" = "$own" ] || skip "$name" "$reason"
    elif [[ "$seen" != *" $tag "* ]]; then
        seen+="$tag "
        if "${within[@]}" "$found" -c 'import os, sysconfig, sys
sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))'; then
            # Several contexts live in processes by default; each other place has one suite of its
            # own. What an interpreter may change shows on asyncio as well as on uvloop.
            place=auto part=("${interpreter[@]}")
            [ "$version" != 3.13 ] || place=interpreters
            [ -n "$all" ] || [[ "3.14 3.15" != *$version* ]] || part=(env TEST_PART=later)
            phase $((900 * scale)) "$name (contexts: $place)" "${part[@]}" TEST_PLACE=$place \
                "${within[@]}" make PYTHON="$found" test-python T="$tests -k 'not uvloop'"
        else
            skip "$name" "$found has no headers (python$version-dev)"
        fi
    fi
done

# freethreaded VARIANT-OPTION: sets $python, or $reason when there is none.
freethreaded() {
    local log
    log=$(mktemp)
    python=$(timeout 2400 scripts/get-freethreaded.sh "$@" 2> >(tee "$log" >&2) </dev/null)
    local status=$?
    reason=$(tail -n 1 "$log")
    rm -f "$log"
    return $status
}

if freethreaded; then
    phase $((900 * scale)) "free-threaded Python (contexts: threads)" "${interpreter[@]}" \
        TEST_PLACE=threads make PYTHON="$python" test-python T="$tests -k 'not uvloop'"
else
    skip "free-threaded Python" "$reason"
fi

if freethreaded --tsan; then
    phase $((900 * scale)) "ThreadSanitizer" make tsan
else
    skip "ThreadSanitizer" "$reason"
fi

phase $((1200 * scale)) "AddressSanitizer" "${asan[@]}" make asan T="$tests"

if command -v valgrind >/dev/null; then
    phase 1200 "instructions a request" make gate
else
    skip "instructions a request" "valgrind is not installed"
fi

phase 600 "the wheel" make try-wheel

printf '\n=== test-more ===\n'
printf '%s\n' "${table[@]}"
if [ "$failed" = 1 ]; then
    printf '\n=== what failed, again ===\n'
    cat "$logs/failures"
    exit 1
fi
