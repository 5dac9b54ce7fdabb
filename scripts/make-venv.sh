#!/bin/sh
# Makes (or brings up to date) a virtual environment that can build, run and test the checkout.
#
#   scripts/make-venv.sh PYTHON VENV EXTRAS
#
# The checkout itself is on the path through a .pth file, and VENV/bin/ppserver starts it: there
# is no installed copy to forget. What has no wheel for this interpreter is left out with a
# message, and the tests that need it skip.
set -eu

python=$1 venv=$2
shift 2
root=$(cd "$(dirname "$0")/.." && pwd)

say() { printf 'make-venv: %s\n' "$*"; }

if ! [ -x "$venv/bin/python" ] || ! "$venv/bin/python" -c '' 2>/dev/null; then
    say "making $venv with $("$python" -c 'import platform; print("Python", platform.python_version())')"
    rm -rf "$venv"
    if "$python" -c 'import ensurepip' 2>/dev/null; then
        "$python" -m venv "$venv"
    else
        # An interpreter built without ensurepip: the main environment's pip serves it.
        "$python" -m venv --without-pip "$venv"
        "$root/.venv/bin/python" -m pip --python "$venv/bin/python" install -q pip
    fi
fi

pip() { "$venv/bin/python" -m pip --disable-pip-version-check "$@"; }
install() { pip install -q --prefer-binary -c "$root/scripts/constraints.txt" "$@"; }
requirements() { "$venv/bin/python" "$root/scripts/requirements.py" "$@"; }

pip install -q -U pip
wanted=$(mktemp)
trap 'rm -f "$wanted"' EXIT
requirements build >"$wanted"
say "installing the build requirements"
install -r "$wanted"
requirements "$@" >"$wanted"
say "installing the requirements of: $*"
if ! install --only-binary :all: -r "$wanted" 2>"$venv/pip.log"; then
    sed -n '/^ERROR: No matching/p' "$venv/pip.log"
    say "not everything is to be had for this interpreter ($venv/pip.log); trying one by one"
    while read -r requirement; do
        install --only-binary :all: "$requirement" 2>/dev/null </dev/null ||
            install --only-binary :all: --no-deps "$requirement" 2>/dev/null </dev/null ||
            say "left out (no wheel for this interpreter): $requirement"
    done <"$wanted"
fi

site=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
echo "$root" >"$site/ppserver-checkout.pth"
cat >"$venv/bin/ppserver" <<END
#!$root/$venv/bin/python
import sys

from ppserver.cli import main

if __name__ == "__main__":
    sys.exit(main())
END
chmod +x "$venv/bin/ppserver"
touch "$venv/.stamp-$*"
