"""Which C file of a layer may use which: tests/tidy.py checks it.

A file includes headers, and uses functions and tables, of lower ranks only; files of one rank do
not know each other, so that there is no circle. What does otherwise today is listed, so that
nothing is added. A new file is given its rank here first. A name stands for its `.c` and its `.h`,
unless one of them is named itself; `name*` for all whose names begin so, as one file. A layer
without ranks is not checked.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Mapping

from csource import defined, includes, used, without_comments

NATIVE = "ppserver/native/"
Ranks = Mapping[str, tuple[tuple[str, ...], ...]]
Pairs = set[tuple[str, str]]

RANKS: Ranks = {
    "net": (
        # the kernel, one thing a file
        ("sys",),
        ("file.h", "park", "poll", "proto.h", "shm", "spool", "stats", "thread"),
        ("address", "poll_epoll", "sock"),
        ("board.h", "forwarded"),
        # a loop: what it is made of, and what every file may do with it
        ("loop.h",),
        ("accesslog.h", "balance.h", "block.h", "exchange.h", "mailbox.h", "out.h"),
        ("loop_impl.h",),
        ("accesslog", "board", "block", "mailbox", "settings"),
        ("loop", "foreign"),
        ("file",),
        ("out",),
        # the transport, exchanges above it, and the protocols
        ("exchange_impl.h",),
        ("http1_impl.h", "raw_impl.h"),
        ("conn*",),
        ("exchange",),
        ("raw",),
        ("http1*",),
        # where connections come from, and the turn
        ("balance",),
        ("listen",),
        ("turn",),
    ),
    "bridge": (
        # the ground
        ("compat",),
        ("constants", "flag", "freeze_header*", "freeze_held", "imprint", "interpreters", "kept"),
        # the state of module and Core, and what everybody may do with it
        ("core_base", "freeze_types", "message"),
        ("board", "forked", "freeze", "scope", "shared"),
        ("access", "attached", "core_settings", "selector", "shared_array"),
        # Tasks, and what they wait for
        ("awaitable",),
        ("app_call",),
        ("own_task", "runner"),
        ("pristine",),
        ("worker",),
        # a request of ASGI
        ("request",),
        ("asgi_receive", "asgi_send"),
        ("asgi_end",),
        ("asgi",),
        # leader and followers, an executor
        ("lead_base",),
        ("lead_word",),
        ("lead",),
        ("lead_threads",),
        ("lead_manager", "queue"),
        # its users: WSGI, and protocols of the parallel API
        ("parallel_base", "wsgi_call"),
        ("parallel_protocols", "transport", "wsgi_file", "wsgi_head", "wsgi_op"),
        ("parallel_callbacks", "wsgi_fail", "wsgi_input"),
        ("parallel_run", "wsgi_environ", "wsgi_response"),
        ("parallel_http11", "parallel_raw", "wsgi_start"),
        ("parallel", "transport_type", "wsgi"),
        # what Python sees
        ("core",),
        ("module",),
    ),
}
UPWARD: Pairs = set()


def place(path: str, ranks: Ranks) -> tuple[str, str, int] | None:
    """Layer, name and rank of a file; None where its layer has no ranks. Rank -1: it has none."""
    layer, _, name = path.removeprefix(NATIVE).rpartition("/")
    if layer not in ranks:
        return None
    for rank, names in enumerate(ranks[layer]):
        if name in names:
            return layer, name, rank
    name = name.rpartition(".")[0]
    for rank, names in enumerate(ranks[layer]):
        for pattern in names:
            if fnmatch.fnmatchcase(name, pattern):
                return layer, pattern, rank
    return layer, name, -1


def check(
    sources: Mapping[str, str], ranks: Ranks = RANKS, upward: Pairs = UPWARD
) -> Iterator[str]:
    """Findings of all files below ppserver/native together, as `path:line: rule: message`."""
    plain = {path: without_comments(source) for path, source in sources.items()}
    homes: dict[str, list[str]] = {}
    for path in sources:
        for name in defined(plain[path]):
            homes.setdefault(name, []).append(path)
    seen: Pairs = set()
    for path, source in sources.items():
        own = place(path, ranks)
        if own is None:
            continue
        layer, name, rank = own
        if rank < 0:
            yield f"{path}:1: ranks: a new file: give it a rank in tests/ranks.py"
            continue
        uses = [(line, file, NATIVE + file) for line, _, file in includes(source)]
        uses += [
            (line, f"{use}()", home)
            for line, use in used(plain[path])
            for home in homes.get(use, ())
        ]
        for line, what, home in uses:
            other = place(home, ranks)
            if other is None or other[0] != layer or other[1] == name or 0 <= other[2] < rank:
                continue
            seen.add((name, other[1]))
            if (name, other[1]) not in upward:
                yield f"{path}:{line}: ranks: {what} of {other[1]}, which is not below {name}"
    names = {own[1] for path in sources if (own := place(path, ranks)) is not None}
    for name, other in sorted(upward - seen):
        if name in names and other in names:
            yield f"tests/ranks.py:1: ranks: {name} uses {other} no more: take it out"
