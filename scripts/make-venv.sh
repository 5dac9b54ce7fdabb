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
# These have no wheels at all, or not for every interpreter, but build in seconds.
built=$(grep -E -i '^(datrie|pyodbc)\>' "$wanted" || true)
grep -v -E -i '^(datrie|pyodbc)\>' "$wanted" >"$wanted.less" || true
mv "$wanted.less" "$wanted"
say "installing the requirements of: $*"
while ! install --only-binary :all: -r "$wanted" 2>"$venv/pip.log"; do
    # What has no wheel for this interpreter is left out; anything else is an error.
    lacking=$(sed -n "s/^ERROR: \\(No matching distribution found for\\|Cannot install\\) \\([A-Za-z0-9._-]*\\).*/\\2/p" \
        "$venv/pip.log" | head -n 1)
    if [ "$lacking" = -r ]; then
        # A requirement of one of ours: pip names the line of the file.
        line=$(sed -n 's/^ERROR: Cannot install -r .* (line \([0-9]*\)).*/\1/p' "$venv/pip.log" | head -n 1)
        lacking=$(sed -n "${line:-0}s/^\\([A-Za-z0-9._-]*\\).*/\\1/p" "$wanted")
    fi
    if [ -z "$lacking" ] || ! grep -q -i "^$lacking\>" "$wanted"; then
        cat "$venv/pip.log" >&2
        exit 1
    fi
    if grep -q -i "^$lacking\[" "$wanted"; then
        # Without the extra that asks for a wheel it may do: psycopg finds the system's libpq.
        sed -i "s/^$lacking\[[a-z]*\]/$lacking/" "$wanted"
        continue
    fi
    say "left out, there being no wheel for this interpreter: $lacking"
    grep -v -i "^$lacking\>" "$wanted" >"$wanted.less" || true
    mv "$wanted.less" "$wanted"
done

for requirement in $built; do
    install "$requirement" 2>"$venv/pip.log" ||
        say "left out, since it does not build here ($venv/pip.log says why): $requirement"
done

site=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
echo "$root" >"$site/ppserver-checkout.pth"
# Installed one by one, as the wheel does: contrib/ itself on the path would shadow others.
for package in parallel ctk; do
    ln -sfn "$root/contrib/$package" "$site/$package"
done
# The entry points of a checkout, which is not installed.
entries=$site/ppserver_checkout-0.dist-info
mkdir -p "$entries"
printf 'Metadata-Version: 2.1\nName: ppserver-checkout\nVersion: 0\n' >"$entries/METADATA"
"$venv/bin/python" - "$root/pyproject.toml" >"$entries/entry_points.txt" <<'END'
import sys, tomllib

with open(sys.argv[1], "rb") as file:
    for group, points in tomllib.load(file)["project"]["entry-points"].items():
        print(f"[{group}]", *(f"{name} = {value}" for name, value in points.items()), sep="\n")
END
cat >"$venv/bin/ppserver" <<END
#!$root/$venv/bin/python
import sys

from ppserver.cli import main

if __name__ == "__main__":
    sys.exit(main())
END
chmod +x "$venv/bin/ppserver"
touch "$venv/.stamp-$*"
