"""Programs: files that say themselves what they serve, by an interface of some other package.

A package brings such an interface: it keeps a `Program` that files fill while they run, as the
parallel API's registry is. An entry point of the group ``ppserver.programs`` makes it known::

    [project.entry-points."ppserver.programs"]
    parallel = "parallel.program:loaded_by_ppserver"

Its name is what a file imports to be such a program. Its value is a function that says "the server
has loaded you, and serves", and gives the `Program`. So nothing here imports such a package, and a
server that is given no program never meets one.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.machinery import PathFinder
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ppserver.config import Config, targets
from ppserver.errors import LoadError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    from ppserver._native import Board, Core

GROUP = "ppserver.programs"


class MainThread(Protocol):
    """The way to the main thread, as a context sees it."""

    pickles: bool  # errands are bytes for the program's perform(); else callables

    def ask(self, errand: Any, *, wait: bool) -> Any:
        """Have it done: what it gives, or None without waiting.

        Raises RuntimeError if the main thread is no longer there, and what a callable raises.
        """


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Running:
    """A context that runs, as a program is told of it."""

    core: Core
    board: Board | None  # None: it is the only one
    slot: int
    main: MainThread
    stop: Callable[[], None]  # the whole server


class Program(Protocol):
    """What a program serves. A tag is the position of one of its protocols."""

    is_ppserver_program: bool  # True: how an object is known to be one
    usage: str  # what to do if it serves nothing yet

    @property
    def addresses(self) -> Sequence[Sequence[str]]:
        """By tag, ``HOST:PORT`` of what to listen on; nothing for who only connects."""

    def scheme(self, tag: int) -> str:
        """What its addresses begin with when they are shown."""

    def is_raw(self, tag: int) -> bool:
        """Whether what comes by its listeners is bytes for the protocol, not HTTP."""

    def table(self) -> tuple[dict[str, Any], ...]:
        """The argument of ``Core.serve_parallel``: the protocols."""

    def before_contexts(self, board: Board | None, *, forked: bool) -> None:
        """This process is going to hold contexts, or to fork them."""

    def perform(self, errand: bytes) -> bytes:
        """Do what a context that shares no objects wants done in the main thread; never raises."""

    def context_began(self, running: Running) -> None:
        """A context serves in this process."""

    def context_ended(self, running: Running) -> None:
        """It does not any more."""

    def listens(self, tag: int, name: Any) -> None:
        """The listener of a tag has this name, as ``getsockname()`` gives it."""


def is_program(config: Config) -> bool:
    """Whether the application is a program: the object itself, or a ``.py`` file without an
    attribute that imports what marks one. Nothing of it is run to find out."""
    if not isinstance(config.app, str):
        return bool(getattr(config.app, "is_ppserver_program", False))
    return _marked(config) is not None


def begin(config: Config) -> Callable[[], Program]:
    """To be called before a program is run; gives what then gives the `Program` that it filled.

    LoadError if nothing is installed that makes programs.
    """
    mark = _marked(config)
    known = _known() if mark is None else {mark.name: mark}
    if not known:
        raise LoadError(
            f"{config.app} is to be a program, but no package that makes programs is installed",
            hint=f"such a package has an entry point of the group {GROUP}",
        )
    found: list[Program] = [entry.load()() for entry in known.values()]
    return lambda: next((one for one in found if one.addresses), found[0])


def _marked(config: Config) -> EntryPoint | None:
    """The entry point of what marks the file that ``config`` names."""
    target = targets.read(config.app)
    if target is None or target.attr or not target.is_file:
        return None
    path = Path(config.app_dir, target.module)
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return None  # Loading it says more.
    imported: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            imported.add(node.module.partition(".")[0])
    for name in sorted(imported - sys.stdlib_module_names):
        entry = _known().get(name)
        if entry is not None and _finds(entry, path.resolve().parent):
            return entry
    return None


@functools.cache
def _known() -> Mapping[str, EntryPoint]:
    """What is installed, by the name that marks a program."""
    from importlib import metadata  # Dear to import, and of use for files only.

    return {entry.name: entry for entry in metadata.entry_points(group=GROUP)}


def _finds(entry: EntryPoint, directory: Path) -> bool:
    """Whether the import in a file there finds the entry point's package, not a module of the
    user's own with that name."""
    spec = PathFinder.find_spec(entry.name, [str(directory), *sys.path])
    inside = Path(*entry.module.split(".")[1:]).with_suffix(".py")
    return spec is not None and any(
        Path(folder, inside).is_file() for folder in spec.submodule_search_locations or ()
    )
