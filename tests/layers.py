"""Which Python file of the package may import which: tests/tidy.py checks it.

A package, or a file of the package's own folder, stands on a floor. It uses its own floor and
those before it, also by an import within a function. A file that is on no floor is new: it is
given one here first. Among the files themselves no circle of imports is allowed either, so that
each can be read, tested and moved with only what is below it.
"""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Iterable, Iterator, Mapping


@dataclasses.dataclass(frozen=True)
class Floor:
    """Members are names below `ppserver.`: a package stands for all of its files. "" is
    `ppserver/__init__.py` itself, which only offers what is below it."""

    title: str
    members: tuple[str, ...]


FLOORS = (
    Floor(
        "the ground",
        ("_native", "_version", "errors", "request", "selector", "shared", "types"),
    ),
    Floor("settings", ("config",)),
    Floor("the machine and this process", ("machine", "freezing")),
    Floor("the application", ("app",)),
    Floor("seen from outside", ("observe",)),
    Floor("one context", ("context",)),
    Floor("many contexts", ("supervision",)),
    Floor("for tests of applications", ("testing",)),
    Floor("what people call", ("", "__main__", "board", "cli")),
)
# Nothing below ppserver/ imports what is built on it.
ABOVE = ("parallel", "ctk", "contrib")

RANKS = {member: rank for rank, floor in enumerate(FLOORS) for member in floor.members}


def module_of(path: str) -> str:
    """`ppserver/context/server.py` is context.server."""
    inside = path.removeprefix("ppserver/").removesuffix("i").removesuffix(".py").replace("/", ".")
    return inside.removesuffix("__init__").removesuffix(".")


def rank_of(module: str) -> int | None:
    """The number of its floor, or of its package's; None if it has none."""
    name = module
    while name and name not in RANKS:
        name = name.rpartition(".")[0]
    return RANKS[name] if name or not module else None


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


def check(sources: Mapping[str, str]) -> Iterator[str]:
    """Findings of all files of the package together, as `path:line: rule: message`."""
    modules = {*map(module_of, sources), *RANKS}
    for path, source in sources.items():
        module = module_of(path)
        rank = rank_of(module)
        if rank is None:
            yield f"{path}:1: layers: a new file: give it a floor in tests/layers.py"
            continue
        for line, name in imports(source, modules):
            top, _, inside = name.partition(".")
            if top in ABOVE:
                yield f"{path}:{line}: layers: {name} is built on the package"
            used = rank_of(inside) if top == "ppserver" else None
            if used is not None and used > rank:
                yield f"{path}:{line}: layers: {name} is on a floor above {module}"
    for circle in circles(sources):
        yield f"{circle[0]}:1: layers: a circle of imports: {' '.join(circle)}"


def circles(sources: Mapping[str, str]) -> Iterator[list[str]]:
    """The files of each set that import one another, directly or by others; stubs aside."""
    known = [module_of(path) for path in sources]
    paths = {module_of(path): path for path in sources if path.endswith(".py")}
    uses = {
        module: {name.removeprefix("ppserver").lstrip(".") for _, name in found}
        for module, path in paths.items()
        if (found := [one for one in imports(sources[path], known) if _is_ours(one[1])])
    }
    reached = {module: _reach(module, uses) for module in uses}
    told: set[str] = set()
    for module in sorted(uses):
        circle = {other for other in reached[module] if module in reached.get(other, ())}
        if module in circle and module not in told:
            told |= circle
            yield sorted(paths[one] for one in circle)


def _is_ours(name: str) -> bool:
    return name.partition(".")[0] == "ppserver"


def _reach(module: str, uses: Mapping[str, set[str]]) -> set[str]:
    """Everything that is used by ``module``, and by what it uses."""
    found: set[str] = set()
    left = [module]
    while left:
        new = uses.get(left.pop(), set()) - found
        found |= new
        left += new
    return found
