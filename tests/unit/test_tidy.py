"""tidy.py finds what it is there to find, and excuses only what says why."""

from __future__ import annotations

import importlib.util
import pathlib
from types import ModuleType

import layers
import pytest
import ranks

PATH = pathlib.Path(__file__).resolve().parents[1] / "tidy.py"


@pytest.fixture(scope="module")
def tidy() -> ModuleType:
    spec = importlib.util.spec_from_file_location("tidy", PATH)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def rules(tidy: ModuleType, path: str, source: str) -> list[str]:
    return [rule for _, rule, _ in tidy.check_file(pathlib.PurePosixPath(path), source)]


@pytest.mark.parametrize(
    ("path", "source", "expected"),
    [
        ("ppserver/native/proto/x.c", "#include <Python.h>\n", ["layers"]),
        ("ppserver/native/bridge/x.c", "#include <Python.h>\n", []),
        ("ppserver/native/base/x.c", '#include "proto/h1_scan.h"\n', ["layers"]),
        ("ppserver/native/net/x.c", '#include "proto/h1_scan.h"\n', []),
        ("ppserver/native/net/x.c", '#include "loop.h"\n', ["layers"]),
        ("ppserver/native/proto/x.c", "#include <sys/socket.h>\n", ["system"]),
        ("ppserver/native/bridge/x.c", "n = read(fd, p, 1);\n", ["system"]),
        ("ppserver/native/bridge/x.c", "n = body->read(p, 1);\n", []),
        ("ppserver/native/bridge/x.c", "/* read (once) */\n", []),
        ("ppserver/native/net/x.c", "n = read(fd, p, 1);\n", ["system"]),
        ("ppserver/native/net/x.c", "n = pp_sys_read(fd, p, 1);\n", []),
        ("ppserver/native/net/x.c", "me = pthread_self();\n", ["system"]),
        ("ppserver/native/net/x.c", "#include <sys/epoll.h>\n", ["system"]),
        ("ppserver/native/net/x.c", "#include <semaphore.h>\n", ["system"]),
        ("ppserver/native/net/x.c", "#include <errno.h>\n", []),
        ("ppserver/native/net/sys.h", "#define pp_sys_x getpid()\n", ["guard"]),
        ("ppserver/native/net/x.c", "p = malloc(8);\n", ["memory"]),
        ("ppserver/native/base/mem.c", "p = malloc(8);\n", []),
        ("tests/native/x.c", "strcpy(a, b);\n", ["banned"]),
        ("ppserver/native/base/x.c", 'puts("strcpy(a, b)");\n', []),
        ("ppserver/native/base/x.h", "#pragma once\n", ["guard"]),
        ("ppserver/x.py", "\n" * 801, ["size"]),
        ("ppserver/x.py", "#" * 101 + "\n", ["size"]),
        ("ppserver/x.py", "a = 1 \n", ["space"]),
        ("tests/native/x.c", "gets(a); /* tidy: allow banned (an example) */\n", []),
    ],
)
def test_findings(tidy: ModuleType, path: str, source: str, expected: list[str]) -> None:
    assert rules(tidy, path, source) == expected


def test_machine_paths(tidy: ModuleType) -> None:
    path = "/".join(["", "home", "someone"])
    assert rules(tidy, "docs/x.md", f"in {path}/here\n") == ["paths"]
    assert rules(tidy, "Makefile", f"$(1){path}\n") == []


SERVER, LOGS = "ppserver/context/server.py", "ppserver/observe/logs.py"


@pytest.mark.parametrize(
    ("path", "source", "expected"),
    [
        (SERVER, "import os\nfrom ppserver.observe import logs\n", ""),
        (SERVER, "from ppserver.context import seats\n", ""),
        (SERVER, "from ppserver.config import Config\n", ""),
        (
            LOGS,
            "from ppserver.context.server import Server\n",
            "1: layers: ppserver.context.server",
        ),
        (LOGS, "def f():\n    import ppserver.cli\n", "2: layers: ppserver.cli"),
        (LOGS, "def f():\n    from ppserver import cli\n", "2: layers: ppserver.cli"),
        (LOGS, "import ppserver\n", "1: layers: ppserver is on a floor above observe.logs"),
        ("ppserver/cli/top.py", "from ppserver.observe import board\n", ""),
        (SERVER, "import parallel.registry\n", "1: layers: parallel.registry"),
        ("ppserver/cli/top.py", "def f():\n    import parallel\n", "2: layers: parallel"),
        ("ppserver/new.py", "", "a new file"),
        ("ppserver/new/file.py", "", "a new file"),
        ("ppserver/_native.pyi", "from ppserver.selector import CoreSelector\n", ""),
        ("ppserver/_native.pyi", "from ppserver.config import Config\n", "1: layers"),
    ],
)
def test_layers(path: str, source: str, expected: str) -> None:
    found = list(layers.check({path: source}))
    assert len(found) == bool(expected)
    assert not expected or expected in found[0]


RANKS = {"bridge": (("compat",), ("low*", "other"), ("high",))}
LOW = "ppserver/native/bridge/low.c"
HIGH = "ppserver/native/bridge/high.c"
DEFINES = "int pp_high_do(int n)\n{\n    return n;\n}\n\nconst struct pp_table pp_table = {0};\n"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ('#include "bridge/compat.h"\n', ""),
        ('#include "bridge/low.h"\n', ""),
        ('#include "bridge/low_two.h"\n', ""),
        ('#include "net/loop.h"\n', ""),
        ('#include "bridge/high.h"\n', "low.c:1: ranks: bridge/high.h of high"),
        ('#include "bridge/other.h"\n', "low.c:1: ranks: bridge/other.h of other"),
        ("static int f(void)\n{\n    return pp_high_do(1);\n}\n", "low.c:3: ranks: pp_high_do"),
        ("static const struct pp_f f = {\n    .do_it = pp_high_do,\n};\n", "low.c:2: ranks: pp_h"),
        ("#define DO() pp_high_do(1)\n", "low.c:1: ranks: pp_high_do"),
        ("static int f(void)\n{\n    return pp_table.n;\n}\n", "low.c:3: ranks: pp_table"),
        ("static int f(void)\n{\n    struct pp_table *t;\n}\n", ""),
        ("static int f(void)\n{\n    return 1; /* pp_high_do() */\n}\n", ""),
        ("int pp_high_do(int n);\n", ""),
    ],
)
def test_ranks(source: str, expected: str) -> None:
    sources = {LOW: source, HIGH: DEFINES}
    found = list(ranks.check(sources, RANKS, set()))
    assert len(found) == bool(expected)
    assert not expected or expected in found[0]
    assert not list(ranks.check(sources, {}, set()))
    assert (
        not list(ranks.check({LOW: "", HIGH: DEFINES + source}, RANKS, set())) or "other" in source
    )


def test_ranks_of_new_files_and_of_exceptions() -> None:
    upward = {("low*", "high")}
    uses = '#include "bridge/high.h"\n'
    assert not list(ranks.check({LOW: uses, HIGH: DEFINES}, RANKS, upward))
    assert "take it out" in "".join(ranks.check({LOW: "", HIGH: DEFINES}, RANKS, upward))
    assert not list(ranks.check({HIGH: DEFINES}, RANKS, upward))
    new = "ppserver/native/bridge/new.c"
    assert "a new file" in "".join(ranks.check({new: ""}, RANKS, set()))


@pytest.mark.parametrize(
    ("sources", "expected"),
    [
        ({"a": "from ppserver.app import b", "b": "from ppserver.app import c", "c": ""}, []),
        ({"a": "from ppserver.app.b import x", "b": "def f(): import ppserver.app.a"}, ["a b"]),
        (
            {
                "a": "from ppserver.app import b",
                "b": "from ppserver.app import c",
                "c": "def f():\n    from ppserver.app.a import x",
                "d": "from ppserver.app import a",
            },
            ["a b c"],
        ),
        ({"__init__": "from ppserver.app.a import x", "a": "from ppserver.app import y"}, [". a"]),
        ({"a": "from ppserver.app import a"}, ["a"]),
    ],
)
def test_circles(sources: dict[str, str], expected: list[str]) -> None:
    files = {f"ppserver/app/{name}.py": source for name, source in sources.items()}
    names = [
        " ".join(pathlib.Path(path).stem.replace("__init__", ".") for path in circle)
        for circle in layers.circles(files)
    ]
    assert names == expected
    assert all("a circle" in finding for finding in layers.check(files))
    assert len(list(layers.check(files))) == len(expected)
