"""What runs where: the variants that `make test` takes, and the parts of other builds.

Many tests are parametrised over loops, numbers of contexts and places. `make test-all` (TEST_ALL)
runs every combination. Otherwise a file that `CHOSEN` names runs only the combinations given there,
a test or parameter that is marked `wide` does not run, and everything else does: a new test runs
in `make test` until somebody decides otherwise, here.

TEST_PART=interpreter and TEST_PART=later (other Pythons) and TEST_PART=asan (sanitizers) run only
the files that `PARTS` names, with the combinations given there: what that interpreter or that
build can change.

A test that is asked for by its full name (`file::name`) always runs.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest

TESTS = Path(__file__).resolve().parent

# A pattern of files, then for each parameter the values that run. Parameters joined by + are
# looked at together. The first pattern that fits a file counts.
Table = dict[str, dict[str, str]]

CHOSEN: Table = {
    # The parser and the core decide, whatever loop turns them.
    "compliance/test_wire_cases.py": {"loop": "asyncio"},
    "integration/test_wire_rules.py": {"loop": "asyncio"},
    "integration/test_wire_smuggling.py": {"loop": "asyncio"},
    # Other kinds of task share what is looked at here, or have nothing that could go wrong.
    "integration/test_asgi_battery.py": {
        "server": "asyncio-worker asyncio-worker-collecting uvloop-worker asyncio-eager"
    },
    "faults/test_application.py": {"server": "asyncio-worker uvloop-worker asyncio-eager"},
    # Each loop and each place is met by some frameworks, not each by every one.
    "integration/test_asgi_spec.py": {
        "variant": "asyncio-1-auto asyncio-2-interpreters uvloop-2-processes"
    },
    "integration/test_asgi_bodies.py": {"variant": "asyncio-1-auto uvloop-2-processes"},
    "integration/test_asyncio_whole.py": {
        "variant": "asyncio-1-auto asyncio-2-interpreters uvloop-1-auto"
    },
    "integration/test_disconnects.py": {"loop": "asyncio"},
    "integration/test_django.py": {"variant": "asyncio-1-auto uvloop-2-processes"},
    "integration/test_fastapi.py": {"variant": "asyncio-2-processes uvloop-1-auto"},
    "integration/test_flask.py": {"variant": "asyncio-1-auto asyncio-2-threads"},
    "integration/test_httpx.py": {"variant": "asyncio-1-auto uvloop-2-processes"},
    "integration/test_starlette.py": {
        "variant": "asyncio-2-threads asyncio-2-interpreters uvloop-1-auto"
    },
    # Signals reach a loop, and contexts live in a place; not each in each.
    "faults/test_processes.py": {"loop": "uvloop threads"},
    "integration/test_asgi_lifespan.py": {"loop": "asyncio"},
    "examples/test_tefb.py": {"database+site": "sqlite-program sqlite-asgi postgresql-program"},
}

# Several contexts do not live in processes alone where another place is what a run is about.
_PLACES = "asyncio-1-auto asyncio-2-threads asyncio-2-interpreters"
_ONE = "asyncio-1-auto"

PARTS: dict[str, Table] = {
    # What an interpreter can change: the bridge, Tasks, freezing, contexts, the parallel API, and
    # for each interface one framework. What the parser alone decides is left out.
    "interpreter": {
        "integration/test_asgi_battery.py": {"server": "asyncio-worker asyncio-eager"},
        "integration/test_asgi_spec.py": {"variant": _PLACES},
        "integration/test_asyncio_whole.py": {"variant": _ONE},
        "integration/test_starlette.py": {"variant": _PLACES},
        "integration/test_flask.py": {"variant": _ONE},
        "integration/test_django.py": {"kind+variant": "asgi-asyncio-1-auto"},
        "integration/test_fastapi.py": {"variant": _ONE},
        "integration/test_httpx.py": {"never": ""},
        "integration/test_wire_*.py": {"never": ""},
        "integration/test_limits.py": {"never": ""},
        "integration/test_pinning.py": {"never": ""},
        "integration/test_parallel*.py": {"site": "1-auto 2-threads 2-interpreters"},
        "integration/*": {"variant": _ONE, "loop": "asyncio"},
        "faults/test_application.py": {"server": "asyncio-worker asyncio-eager"},
        "faults/test_network.py": {"never": ""},
        "faults/test_processes.py": {"loop": "asyncio threads"},
        "faults/*": {"loop": "asyncio"},
        "leaks/*": {"loop": "asyncio"},
        "unit/test_again.py": {"never": ""},
        "unit/test_cases.py": {"never": ""},
        "unit/test_docs.py": {"never": ""},
        "unit/test_freeze_layouts.py": {"never": ""},
        "unit/test_tidy.py": {"never": ""},
        "unit/*": {},
    },
    # The same, narrower, for the versions that share the layout of objects and the bridge's code:
    # Python 3.14 and 3.15.
    "later": {
        "integration/test_asgi_battery.py": {"server": "asyncio-worker asyncio-eager"},
        "integration/test_asgi_spec.py": {"variant": _ONE},
        "integration/test_asgi_touching.py": {},
        "integration/test_starlette.py": {"variant": "asyncio-1-auto asyncio-2-interpreters"},
        "integration/test_flask.py": {"variant": _ONE},
        "integration/test_django.py": {"kind+variant": "asgi-asyncio-1-auto"},
        "integration/test_fastapi.py": {"variant": _ONE},
        "integration/test_freeze.py": {},
        "integration/test_interpreters.py": {},
        "integration/test_introspection.py": {},
        "integration/test_module_isolation.py": {},
        "integration/test_opened_at_import.py": {},
        "integration/test_parallel.py": {"site": "1-auto 2-interpreters"},
        "integration/test_server_api.py": {},
        "integration/test_threads.py": {},
        "integration/test_wsgi.py": {"variant": _ONE},
        "faults/test_application.py": {"server": "asyncio-worker"},
        "leaks/test_no_memory.py": {},
        "unit/test_freeze_layouts.py": {"never": ""},
        "unit/test_freeze*.py": {},
        "unit/test_guest.py": {},
        "unit/test_interpreters_place.py": {},
        "unit/test_scope.py": {},
        "unit/test_selector.py": {},
    },
    # What may touch memory: the bridge and the network. The C units run under sanitizers by
    # themselves, and the Python of supervision needs none.
    "asan": {
        "integration/test_asgi_battery.py": {"server": "asyncio-worker"},
        "integration/test_asgi_spec.py": {"variant": _ONE},
        "integration/test_asgi_bodies.py": {"variant": "asyncio-1-auto asyncio-2-threads"},
        "integration/test_starlette.py": {"variant": _ONE},
        "integration/test_httpx.py": {"never": ""},
        "integration/test_wsgi*.py": {},
        "integration/test_wire_*.py": {"loop": "asyncio"},
        "integration/test_limits.py": {"loop": "asyncio"},
        "integration/test_balance.py": {},
        "integration/test_freeze.py": {},
        "integration/test_module_isolation.py": {},
        "integration/test_parallel*.py": {"site": "1-auto 2-threads"},
        "integration/test_server_api.py": {},
        "integration/test_threads.py": {},
        "faults/test_processes.py": {"loop": "threads"},
        "faults/test_application.py": {"server": "asyncio-worker"},
        "faults/*": {"loop": "asyncio"},
        "leaks/test_no_memory.py": {},
        "unit/test_freeze_layouts.py": {"never": ""},
        "unit/test_freeze*.py": {},
        "unit/test_guest.py": {},
        "unit/test_scope.py": {},
        "unit/test_selector.py": {},
        "unit/test_shared.py": {},
    },
}

# These take longest: they begin first, so that none is left alone at the end.
LONG = (
    "integration/test_processes.py",
    "faults/test_processes.py",
    "integration/test_httpx.py",
    "integration/test_asgi_battery.py",
    "examples/test_tefb.py",
    "integration/test_cli_serving.py",
    "examples/test_wiki_serving.py",
    "integration/test_wsgi_threads.py",
    "unit/test_docs.py",
    "integration/test_asyncio_whole.py",
    "integration/test_asgi_lifespan.py",
    "integration/test_django.py",
    "integration/test_threads.py",
    "faults/test_network.py",
)


def text_of(value: Any) -> str:
    """A parameter as it stands in a table: the parts of a tuple joined by hyphens."""
    parts = value if isinstance(value, tuple) else (value,)
    return "-".join(str(part) for part in parts if part != "")


def fits(file: str, params: dict[str, Any], table: Table, others: bool) -> bool:
    """Whether a test of `file` runs with these parameters; `others`: if no pattern fits it."""
    wanted = next((values for name, values in table.items() if fnmatchcase(file, name)), None)
    if wanted is None:
        return others
    if "never" in wanted:
        return False
    for names, values in wanted.items():
        if all(name in params for name in names.split("+")):
            text = "-".join(text_of(params[name]) for name in names.split("+"))
            if text not in values.split():
                return False
    return True


def runs(file: str, params: dict[str, Any], part: str) -> bool:
    """In a run of this part; without one, in `make test`."""
    if part:
        return fits(file, params, PARTS[part], others=False)
    return fits(file, params, CHOSEN, others=True)


def place_of(file: str) -> int:
    return LONG.index(file) if file in LONG else len(LONG)


def is_named(item: pytest.Item, argument: str) -> bool:
    """Whether `file::name`, with its parameters or without, stands for this test."""
    file, _, name = argument.partition("::")
    _, _, own = item.nodeid.partition("::")
    same = own == name or own.startswith((name + "[", name + "::"))
    return same and item.path == Path(file).resolve()


def select(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Called by conftest.py: leave out what does not run, and put first what takes long."""
    part = os.environ.get("TEST_PART", "")
    if part not in ("", *PARTS):
        raise pytest.UsageError(f"TEST_PART={part}: there are {', '.join(PARTS)}")
    all_of_them = bool(os.environ.get("TEST_ALL")) and not part
    named = [argument for argument in config.args if "::" in argument]
    kept: list[tuple[int, pytest.Item]] = []
    left: list[pytest.Item] = []
    for item in items:
        file = item.path.relative_to(TESTS).as_posix()
        callspec = getattr(item, "callspec", None)
        params = callspec.params if callspec else {}
        wide = item.get_closest_marker("wide") is not None
        asked = any(is_named(item, argument) for argument in named)
        if all_of_them or asked or (not wide and runs(file, params, part)):
            kept.append((place_of(file), item))
        else:
            left.append(item)
    if left:
        config.hook.pytest_deselected(items=left)
    items[:] = [item for _, item in sorted(kept, key=lambda pair: pair[0])]


def unknown(files: Iterable[str]) -> list[str]:
    """Patterns of the tables that fit no file, for tests/unit/test_matrix.py."""
    known = list(files)
    patterns = [*CHOSEN, *(name for table in PARTS.values() for name in table), *LONG]
    return [name for name in patterns if not any(fnmatchcase(file, name) for file in known)]
