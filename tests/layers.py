"""Which Python file of the package may import which: tests/tidy.py checks it.

A file uses its own floor and those before it, also by an import within a function. What does
otherwise today is listed, so that nothing is added. A new file is given its floor here first.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping

# Modules below `ppserver.`; the package itself is "".
FLOORS: tuple[tuple[str, ...], ...] = (
    # the ground
    (
        *("_native", "_version", "board", "errors", "handlers", "measuring", "opened", "patched"),
        *("proxy", "request", "selector", "shared", "terminal", "types"),
    ),
    # settings
    ("config", "sources"),
    # the machine and the process
    (
        "console",
        "directory",
        "console",
        "disposal",
        "exits",
        "freezing",
        "gil",
        "logs",
        "pidfile",
        "privileges",
        "readiness",
        "sockets",
        "topology",
    ),
    # the application
    ("hooks", "lifespan", "loader"),
    # one context
    ("contexts.errands", "contexts.seats", "eventloop", "server", "watchdog"),
    # many contexts
    (
        *("contexts", "contexts.channel", "contexts.family", "contexts.generation"),
        *("contexts.guest", "contexts.host", "contexts.inline", "contexts.interpreters"),
        *("contexts.messages", "contexts.processes", "contexts.threads", "supervisor"),
    ),
    # from outside
    ("", "__main__", "cli", "testing"),
)
UPWARD = {
    ("config", "loader"),
    ("contexts", ""),
    ("contexts.host", "cli"),
    ("supervisor", "cli"),
}
# Nothing below ppserver/ imports what is built on it.
ABOVE = ("parallel", "ctk", "contrib")
IMPORTS_ABOVE = {"loader"}

RANKS = {module: rank for rank, floor in enumerate(FLOORS) for module in floor}


def module_of(path: str) -> str:
    """`ppserver/contexts/host.py` is contexts.host."""
    inside = path.removeprefix("ppserver/").removesuffix(".py").replace("/", ".")
    return inside.removesuffix("__init__").removesuffix(".")


def imports(source: str, modules: Iterable[str]) -> Iterator[tuple[int, str]]:
    """Line and name of each import, the name of a module where that is imported from a package."""
    known = {f"ppserver.{module}" for module in modules}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield node.lineno, full if full in known else str(node.module)


def check(sources: Mapping[str, str], ranks: Mapping[str, int] = RANKS) -> Iterator[str]:
    """Findings of all files of the package together, as `path:line: rule: message`."""
    upward: set[tuple[str, str]] = set()
    for path, source in sources.items():
        module = module_of(path)
        if module not in ranks:
            yield f"{path}:1: layers: a new file: give it a floor in tests/layers.py"
            continue
        for line, name in imports(source, ranks):
            top, _, inside = name.partition(".")
            if top in ABOVE and module not in IMPORTS_ABOVE:
                yield f"{path}:{line}: layers: {name} is built on the package"
            if top != "ppserver" or inside not in ranks or ranks[inside] <= ranks[module]:
                continue
            upward.add((module, inside))
            if (module, inside) not in UPWARD:
                yield f"{path}:{line}: layers: {name} is on a floor above {module}"
    for module, inside in sorted(UPWARD - upward):
        if any(module_of(path) == module for path in sources):
            yield f"tests/layers.py:1: layers: {module} imports {inside} no more: take it out"
