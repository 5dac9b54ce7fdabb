#!/bin/sh
# Runs a command in the root folder that scripts/get-debian-pythons.sh made:
#
#   scripts/in-debian.sh COMMAND [ARGUMENT...]
#
# The checkout is there under the same path, and so are this machine's /dev and /tmp, its network,
# its certificates, and pip's configuration with the folders of packages that it names. They are
# mounted in a namespace of the command's own, so they go when it ends. Exit status: the command's,
# or that of get-debian-pythons.sh.
set -eu
cd "$(dirname "$0")/.."

root=$(scripts/get-debian-pythons.sh) || exit $?

# Where pip finds packages on this machine: the folders and file: addresses in its configuration. An
# index may refer to what lies beside it.
folders=$({ python3 -m pip config list; printenv PIP_FIND_LINKS PIP_INDEX_URL PIP_EXTRA_INDEX_URL; } \
    2>/dev/null | grep -oE '/[[:alnum:]._/+-]+' | sed -E 's,^/+,/,; s,/simple/*$,,' | sort -u)

# shellcheck disable=SC2016
exec unshare --mount --propagation private sh -eu -c '
    root=$1 folders=$2
    shift 2
    bind() { # at the same path, if it is there
        [ -e "$1" ] || return 0
        if [ -d "$1" ]; then
            mkdir -p "$root$1"
        else
            mkdir -p "$root${1%/*}"
            [ -e "$root$1" ] || : >"$root$1"
        fi
        mount --rbind "$1" "$root$1"
    }
    mount -t proc proc "$root/proc"
    for path in /dev /sys /tmp "$PWD" /etc/resolv.conf /etc/hosts /etc/ssl/certs /etc/pip.conf \
        "$HOME/.config/pip" "$HOME/.pip" "$HOME/.cache/pip" $folders; do
        bind "$path"
    done
    here=$PWD
    exec chroot "$root" sh -c "cd \"\$1\" && shift && exec \"\$@\"" sh "$here" "$@"
' sh "$root" "$folders" "$@"
