"""Memory that contexts share: docs/internals/shared-writes.md lists every write; this keeps it so.

A counter that all contexts write in each request costs little with two cores and everything with
sixty-four, and no other test would notice one more of them.
"""

from __future__ import annotations

import fnmatch
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import ppserver._native

ROOT = Path(__file__).resolve().parents[2]
NATIVE = ROOT / "ppserver" / "native"
PAGE = ROOT / "docs" / "internals" / "shared-writes.md"

# What a compiler's builtins do to memory: everything but loads and fences.
ATOMIC_WRITE = re.compile(
    r"\b(?:__atomic_(?!load|thread_fence|signal_fence|is_lock_free|always_lock_free)\w+"
    r"|__sync_\w+|atomic_(?!load|thread_fence|signal_fence|is_lock_free)\w+)\s*\("
)
FUNCTION = re.compile(r"^[A-Za-z_][\w \t*]*?\b(\w+)\((?!.*;\s*$)")
RARELY = {
    "start",
    "end",
    "thread",  # once in a thread's life
    "hand-over",  # a connection that goes to another context
    "message",  # from another thread to the loop
    "loss",  # something could not be done
    "application",  # because it asked for it: ppserver.shared
    "test builds",
}
OFTEN = {"request", "turn", "allocation", "WSGI call", "connection"}
SHARED = {
    "nobody",
    "readers",  # others read it, at an accept or for metrics
    "own threads",  # of the same context
    "contexts",  # written by several
}


def rows(heading: str) -> list[list[str]]:
    """The cells of the table below a heading of the page, without its head."""
    _, found, rest = PAGE.read_text().partition(f"\n## {heading}\n")
    assert found, f"no heading {heading!r} in {PAGE.name}"
    lines = [line for line in rest.partition("\n## ")[0].splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def code(text: str) -> str:
    assert re.fullmatch(r"`[^`]+`", text), f"expected `code`, not {text}"
    return text.strip("`")


# -- atomic writes in the source -------------------------------------------------------------------


def without_comments(source: str) -> str:
    return re.sub(
        r"/\*.*?\*/", lambda match: re.sub(r"[^\n]", " ", match[0]), source, flags=re.DOTALL
    )


def atomic_writes(source: str) -> Iterator[str]:
    """The names of the functions that write atomically."""
    function = ""
    for line in without_comments(source).splitlines():
        if match := FUNCTION.match(line):
            function = match[1]
        if ATOMIC_WRITE.search(line):
            yield function


def test_the_scanner_finds_every_kind_of_write() -> None:
    source = """
static void one(int *p)
{
    /* __atomic_store_n(p, 1, x) */
    __atomic_load_n(p, __ATOMIC_RELAXED);
}
int two(int *p);
static inline struct a *two(int *p,
                            int q)
{
    if (!__atomic_compare_exchange_n(p, &q, 1, true, 0, 0)) {
    }
}
void three(void)
{
    atomic_fetch_add_explicit(&x, 1, memory_order_relaxed);
}
"""
    assert list(atomic_writes(source)) == ["two", "three"]


def test_every_atomic_write_is_on_the_page() -> None:
    found = {
        (path.relative_to(NATIVE).as_posix(), function)
        for path in sorted(NATIVE.rglob("*.[ch]"))
        for function in atomic_writes(path.read_text())
    }
    listed = [(code(row[0]), code(row[1])) for row in rows("Atomic writes")]
    assert len(listed) == len(set(listed))
    missing, stale = found - set(listed), set(listed) - found
    assert not missing, f"say in {PAGE.name} whose memory these write, and how often: {missing}"
    assert not stale, f"{PAGE.name} names what is no more: {stale}"


def test_nothing_that_contexts_share_is_written_often() -> None:
    for file, function, _what, shared, when in rows("Atomic writes"):
        assert shared in SHARED, (file, function, shared)
        assert when in RARELY | OFTEN, (file, function, when)
        if shared == "contexts":
            assert when in RARELY, f"{function} in {file}: contexts would fight over it"


# -- writable symbols in the extension -------------------------------------------------------------


def writable_symbols(file: Path) -> dict[str, str]:
    """Names in sections that stay writable, with the section; the toolchain's own left out."""
    text = subprocess.run(
        ["objdump", "-t", str(file)], capture_output=True, text=True, check=True
    ).stdout
    found = {}
    for line in text.splitlines():
        match = re.search(r"\s\.(data|bss|tdata|tbss)\s+[0-9a-f]+\s+(?:\.hidden\s+)?(\S+)$", line)
        if match and not match[2].startswith((".", "_")) and match[2] != "completed.0":
            found[re.sub(r"(?:\.(?:lto_priv|isra|part))?\.\d+$", "", match[2])] = match[1]
    return found


@pytest.mark.skipif(shutil.which("objdump") is None, reason="binutils are not installed")
@pytest.mark.skipif("TEST_SANITIZER" in os.environ, reason="sanitizers add symbols of their own")
def test_every_writable_symbol_is_on_the_page() -> None:
    assert ppserver._native.__file__ is not None
    found = writable_symbols(Path(ppserver._native.__file__))
    if not found:
        pytest.skip("the extension has been stripped")
    patterns = {code(row[0]): row for row in rows("Writable memory of the process")}
    unlisted = [s for s in found if not any(fnmatch.fnmatch(s, p) for p in patterns)]
    assert not unlisted, f"say in {PAGE.name} who writes these, and how often: {unlisted}"
    for pattern, row in patterns.items():
        matching = [symbol for symbol in found if fnmatch.fnmatch(symbol, pattern)]
        if row[2] != "test builds":
            assert matching, f"{PAGE.name} names what is no more: {pattern}"
        thread_local = {symbol for symbol in matching if found[symbol] in ("tdata", "tbss")}
        assert thread_local in (set(), set(matching)), (pattern, thread_local)
        assert bool(thread_local) == (row[1] == "thread"), (pattern, row[1])
        assert row[2] in RARELY | {"never", "allocation"}, (pattern, row[2])
        assert row[1] in {"process", "thread", "stripe"}, (pattern, row[1])
        if row[1] == "process":
            assert row[2] in RARELY | {"never"}, f"{pattern}: contexts would fight over it"
