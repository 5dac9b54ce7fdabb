#!/bin/sh
# Prints the path of a root folder with Debian's own python3.14 and python3.15 in it, headers and a
# compiler included; scripts/in-debian.sh runs a command there.
#
#   scripts/get-debian-pythons.sh            find one, else make one and keep it
#   scripts/get-debian-pythons.sh --find     find one, never make one
#
# Made by debootstrap from the Debian mirror that this machine's apt uses already, kept per user in
# ${XDG_CACHE_HOME:-~/.cache}/ppserver (600 MB). $DEBIAN_PYTHONS names other versions ("3.14"),
# $DEBIAN_SUITE another suite than testing (sid).
#
# Exit status: 0 found or made, 1 failed, 77 cannot be provided here (the reason is on standard
# error).
set -eu

mode=${1:-make}
suite=${DEBIAN_SUITE:-testing}
versions=${DEBIAN_PYTHONS:-3.14 3.15}
cache=${XDG_CACHE_HOME:-${HOME:?}/.cache}/ppserver
root=$cache/debian-$suite

say() { printf 'get-debian-pythons: %s\n' "$*" >&2; }
unavailable() { say "$*"; exit 77; }

works() {
    for version in $versions; do
        [ -x "$root/usr/bin/python$version" ] && [ -e "$root/usr/include/python$version/Python.h" ] ||
            return 1
    done
}

[ "$(id -u)" = 0 ] || unavailable "a root folder with Debian's Pythons can only be used by root"
unshare --mount true 2>/dev/null || unavailable "this machine does not let root mount anything"
if works; then echo "$root"; exit 0; fi
[ "$mode" != --find ] || unavailable "no root folder with Debian's Python $versions found"

command -v apt-get >/dev/null 2>&1 || unavailable "there is no apt here to fetch Debian's Pythons with"
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
[ -r "$keyring" ] || unavailable "fetching Debian's Pythons needs the package debian-archive-keyring"
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' \
    'Label: Debian' 2>/dev/null | sort -u | head -n 1)
[ -n "$mirror" ] || unavailable "this machine's apt knows no Debian mirror to fetch Debian's Pythons from"
if ! command -v debootstrap >/dev/null 2>&1; then
    say "installing debootstrap"
    DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends debootstrap \
        >&2 </dev/null || unavailable "debootstrap is not installed, and apt does not install it"
fi

packages="ca-certificates gcc libc6-dev libodbc2 make"
for version in $versions; do
    packages="$packages python$version python$version-dev python$version-venv"
done

mkdir -p "$cache"
work=$(mktemp -d "$cache/build.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
say "making a root folder of Debian $suite with Python $versions; two minutes"
(
    # After "||" the shell goes on after a failure, whatever "set -e" says: so a chain.
    debootstrap --variant=minbase --keyring="$keyring" "$suite" "$work/made" "${mirror%/}" &&
    # The packages' scripts want /proc; what is mounted here goes with the process.
    # shellcheck disable=SC2086,SC2016
    unshare --mount sh -eu -c 'root=$1; shift
        mount -t proc proc "$root/proc"
        exec chroot "$root" env DEBIAN_FRONTEND=noninteractive LC_ALL=C "$@"' sh "$work/made" \
        apt-get -q install -y --no-install-recommends $packages &&
    rm -rf "$work/made/var/cache/apt/archives" "$work/made/var/lib/apt/lists" &&
    rm -rf "$root" &&
    mv "$work/made" "$root"
) >"$cache/debian-$suite.log" 2>&1 </dev/null || {
    say "that failed; the end of $cache/debian-$suite.log:"
    tail -n 20 "$cache/debian-$suite.log" >&2
    exit 1
}
works || { say "what was made lacks Python $versions: $root"; exit 1; }
echo "$root"
