#!/bin/sh
# Prints the path of a free-threaded CPython (3.13 or later) on standard output.
#
#   scripts/get-freethreaded.sh            find one, else build one and keep it
#   scripts/get-freethreaded.sh --find     find one, never build
#   scripts/get-freethreaded.sh --built    only the one built here
#   scripts/get-freethreaded.sh --tsan     one whose interpreter is itself built with
#                                          ThreadSanitizer (always built, kept apart)
#
# Found: $FREETHREADED_PYTHON, then python3.14t / python3.13t on PATH, then one that uv
# manages, then one built here before. Built: from Debian's source package of CPython, fetched
# and verified by apt with a private list of sources, so the system's own apt configuration
# stays as it is. The result is kept per user in ${XDG_CACHE_HOME:-~/.cache}/ppserver.
#
# Exit status: 0 found or built, 1 failed, 77 cannot be provided here (the reason is on
# standard error).
set -eu

mode=${1:-build}
suite=${FREETHREADED_SUITE:-trixie}
package=${FREETHREADED_PACKAGE:-python3.13}
cache=${XDG_CACHE_HOME:-${HOME:?}/.cache}/ppserver
flavour=freethreaded
options=--disable-gil
if [ "$mode" = --tsan ]; then
    flavour=freethreaded-tsan
    options="--disable-gil --with-thread-sanitizer"
fi
prefix=$cache/$package-$flavour

say() { printf 'get-freethreaded: %s\n' "$*" >&2; }
unavailable() { say "$*"; exit 77; }

works() {
    [ -n "$1" ] && TSAN_OPTIONS=report_bugs=0 "$1" -c '
import sys, sysconfig
ok = sys.version_info >= (3, 13) and sysconfig.get_config_var("Py_GIL_DISABLED")
if ok:
    import ctypes, sqlite3, ssl, zlib
sys.exit(0 if ok else 1)' >/dev/null 2>&1
}

# --- find ---------------------------------------------------------------------------------
if [ "$mode" != --tsan ] && [ "$mode" != --built ]; then
    for candidate in "${FREETHREADED_PYTHON:-}" python3.14t python3.13t; do
        [ -n "$candidate" ] || continue
        path=$(command -v "$candidate" 2>/dev/null) || continue
        if works "$path"; then echo "$path"; exit 0; fi
    done
    if command -v uv >/dev/null 2>&1; then
        for version in 3.14t 3.13t; do
            path=$(uv python find --no-python-downloads "$version" 2>/dev/null) || continue
            if works "$path"; then echo "$path"; exit 0; fi
        done
    fi
fi
if works "$prefix/bin/python3"; then echo "$prefix/bin/python3"; exit 0; fi
[ "$mode" != --find ] || unavailable "no free-threaded CPython found"

# --- build --------------------------------------------------------------------------------
command -v apt-get >/dev/null 2>&1 || unavailable "no free-threaded CPython found, and no apt here to fetch its source with"
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
[ -r "$keyring" ] || unavailable "no free-threaded CPython found; building one needs the package debian-archive-keyring"

# The mirror is the one this machine already uses for Debian.
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' \
    'Label: Debian' 2>/dev/null | sort -u | head -n 1)
[ -n "$mirror" ] || unavailable "no free-threaded CPython found, and this machine's apt knows no Debian mirror to build one from (install python3.13t or python3.14t by hand)"

needed="gcc make patch xz-utils dpkg-dev pkg-config libssl-dev zlib1g-dev libffi-dev libbz2-dev
    liblzma-dev libsqlite3-dev"
[ "$mode" != --tsan ] || needed="$needed clang"
missing=
for name in $needed; do
    dpkg-query -W -f '${Status}' "$name" 2>/dev/null | grep -q 'ok installed' ||
        missing="$missing $name"
done
if [ -n "$missing" ]; then
    sudo=
    if [ "$(id -u)" != 0 ]; then
        sudo -n true 2>/dev/null || unavailable "building a free-threaded CPython needs these packages:$missing"
        sudo=sudo
    fi
    say "installing$missing"
    # shellcheck disable=SC2086
    $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $missing >&2 </dev/null
fi

mkdir -p "$cache"
work=$(mktemp -d "$cache/build.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
mkdir -p "$work/apt/lists/partial" "$work/apt/archives/partial" "$work/apt/empty"
echo "deb-src [signed-by=$keyring] $mirror $suite main" >"$work/apt/sources.list"

private_apt() {
    apt-get -q -o Dir::Etc::SourceList="$work/apt/sources.list" \
        -o Dir::Etc::SourceParts="$work/apt/empty" -o Dir::Etc::PreferencesParts="$work/apt/empty" \
        -o Dir::State::Lists="$work/apt/lists" -o Dir::Cache="$work/apt" \
        -o Dir::Cache::archives="$work/apt/archives" -o APT::Sandbox::User="$(id -un)" \
        -o Acquire::Languages=none -o Acquire::Retries=3 "$@"
}

say "building a free-threaded CPython from Debian's source package $package ($suite); a few minutes"
cd "$work"
# Options of a make that runs this (no built-in rules) are not for CPython's.
unset MAKEFLAGS MFLAGS MAKELEVEL MAKEOVERRIDES
(
    # After "||" the shell goes on after a failure, whatever "set -e" says.
    private_apt update || exit 1
    private_apt source --download-only --only-source "$package/$suite" || exit 1
    # CPython as it is upstream, with Debian's security fixes; Debian's other changes move
    # folders about in a way that does not know of free-threaded builds.
    dpkg-source --skip-patches -x "$package"_*.dsc tree || exit 1
    cd tree || exit 1
    grep '^CVE-' debian/patches/series | while read -r fix; do
        patch -s -p1 <"debian/patches/$fix" || exit 1
    done || exit 1
    if [ "$mode" = --tsan ]; then
        CC=clang LDFLAGS=-fsanitize=thread; export CC LDFLAGS
    fi
    # The compiler sees a path that does not depend on where this happened to be unpacked.
    # shellcheck disable=SC2086
    ./configure -q --prefix="$prefix" $options --without-ensurepip --disable-test-modules \
        CFLAGS="-ffile-prefix-map=$PWD=." || exit 1
    make -s -j"${JOBS:-$(nproc)}" || exit 1
    rm -rf "$prefix"
    make -s install || exit 1
) >"$cache/$flavour.log" 2>&1 </dev/null || {
    say "the build failed; the end of $cache/$flavour.log:"
    tail -n 20 "$cache/$flavour.log" >&2
    exit 1
}
works "$prefix/bin/python3" || { say "what was built does not run: $prefix/bin/python3"; exit 1; }
say "built $("$prefix/bin/python3" -VV)"
echo "$prefix/bin/python3"
