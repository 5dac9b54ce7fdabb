"""The extension in many interpreters and threads at once, and what makes that safe.

`tests/apps/isolation.py` is the core of the suite in one function; here it runs in company.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import sysconfig
import threading
from typing import Any

import pytest
import serving

from ppserver import _native

isolation = serving.load_app("isolation")

COUNT = 8
ROUNDS = 2
SANITIZER = os.environ.get("TEST_SANITIZER", "")
# What runs side by side is what a thread sanitizer is for, however long it takes there.
long = pytest.mark.timeout(200) if SANITIZER == "thread" else pytest.mark.slow
HEAP_TYPE = 1 << 9  # Py_TPFLAGS_HEAPTYPE

own_gil = pytest.mark.skipif(
    sys.version_info < (3, 13),
    reason="interpreters with a GIL of their own are used from Python 3.13 on",
)


def run(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Python in a process of its own, which finds this package and the applications."""
    inherited = os.environ.get("PYTHONPATH")
    path = os.pathsep.join(filter(None, [inherited, str(serving.ROOT), str(serving.APPS)]))
    return subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, "PYTHONPATH": path, **env},
        cwd=serving.APPS,
        capture_output=True,
        text=True,
        timeout=180 if SANITIZER else 50,
    )


def interpreter(program: str) -> str:
    """What `run_interpreter(program)` raised in a fresh process; "none" if nothing."""
    done = run(
        "-c",
        "import os, sys\n"
        "from ppserver import _native\n"
        "try:\n"
        f"    print(_native.run_interpreter({program}))\n"
        "except Exception as error:\n"
        "    print(type(error).__name__, error)\n"
        "sys.stdout.flush()\n"
        "os._exit(0)\n",
        PYTHONIOENCODING="utf-8",
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


# In company.


@own_gil
@long
def test_eight_interpreters_and_eight_threads_at_once() -> None:
    # It ends without ceremony: a thread that has just ended may not have been let go of yet.
    options = os.environ.get("TSAN_OPTIONS", "") + ":report_thread_leaks=0"
    done = run("isolation.py", str(COUNT), str(ROUNDS), TSAN_OPTIONS=options)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    loaded = {line["loaded"]: line for line in lines if "loaded" in line}
    ended = {line["ended"]: line for line in lines if "ended" in line}
    interpreters = [f"interpreter-{number}" for number in range(COUNT)]
    threads = [f"thread-{number}" for number in range(COUNT)]
    assert set(ended) == set(loaded) == {*interpreters, *threads}
    assert [line["failed"] for line in ended.values() if "failed" in line] == []
    counted = isolation.expected_count(ROUNDS)
    assert [line["counted"] for line in ended.values()] == [counted] * 2 * COUNT
    steps = {ended[name]["battery"] for name in interpreters}
    assert len(steps) == 1
    assert min(steps) > 100
    # All of them exist until the process ends, so one address is one type.
    for kind in ("core", "error"):
        assert len({loaded[name][kind] for name in interpreters}) == COUNT
        assert len({loaded[name][kind] for name in [*interpreters, *threads]}) == COUNT + 1
    # The battery has checks that switch asyncio's debugging on, which is talkative.
    assert [line for line in done.stderr.splitlines() if "Executing <" not in line] == []


@long
def test_eight_threads_at_once() -> None:
    together = threading.Barrier(COUNT)
    outcomes: dict[int, Any] = {}

    def work(number: int) -> None:
        together.wait(isolation.SECONDS)
        try:
            outcomes[number] = isolation.exercise(ROUNDS, f"thread{number}")
        except BaseException as error:
            outcomes[number] = error

    gc.collect()
    before = _native.memory()
    threads = [threading.Thread(target=work, args=(number,)) for number in range(COUNT)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(isolation.SECONDS)
    assert outcomes == {number: isolation.expected_count(ROUNDS) for number in range(COUNT)}
    gc.collect()
    assert _native.memory() == before


# One module object and another.


def test_loaded_again_it_is_another_module() -> None:
    other = isolation.load_again()
    assert other is not _native
    assert other.Core is not _native.Core
    assert other.ClientDisconnected is not _native.ClientDisconnected
    assert not set(map(id, isolation.types_of(other))) & set(map(id, isolation.types_of(_native)))
    one, two = _native.Core(), other.Core()
    assert not isinstance(one, other.Core)
    assert not isinstance(two, _native.Core)
    one.close()
    two.close()


def test_imported_again_it_works() -> None:
    done = run(
        "-c",
        "import sys\n"
        "from ppserver import _native as first\n"
        "del sys.modules['ppserver._native']\n"
        "import ppserver._native\n"
        "second = sys.modules['ppserver._native']\n"
        "assert second is not first and second.Core is not first.Core\n"
        "for module in (first, second, first):\n"
        "    core = module.Core()\n"
        "    core.close()\n",
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_module_and_its_types_are_collected() -> None:
    """In a fresh process: on 3.13t modules and types are immortal once a thread has started."""
    program = "import isolation; print(*isolation.what_stays(), sep='\\n', end='')"
    done = run("-c", program)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_every_type_is_a_heap_type_of_the_module() -> None:
    types = isolation.types_of(_native)
    assert _native.Core in types
    for one in types:
        assert one.__flags__ & HEAP_TYPE, one


@pytest.mark.skipif(not serving.FREE_THREADED, reason="about free-threaded builds")
def test_the_gil_stays_off() -> None:
    program = "import sys, ppserver._native; print(sys._is_gil_enabled())"
    env = {"PYTHON_GIL": ""}
    done = run("-W", "error", "-c", program, **env)
    assert (done.returncode, done.stdout, done.stderr) == (0, "False\n", "")


# `run_interpreter` itself.


@pytest.mark.skipif(sys.version_info >= (3, 13), reason="refused before Python 3.13")
def test_refused_before_3_13() -> None:
    with pytest.raises(RuntimeError, match=r"need CPython 3\.13"):
        _native.run_interpreter("")


@own_gil
def test_program_must_be_text() -> None:
    with pytest.raises(TypeError, match="must be a str"):
        _native.run_interpreter(b"pass")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="NUL"):
        _native.run_interpreter("pass\0pass")
    with pytest.raises(UnicodeEncodeError):
        _native.run_interpreter("'\ud800'")


@own_gil
@pytest.mark.parametrize(
    ("program", "expected"),
    [
        ("'pass'", "None"),
        ("'import sys; sys.exit(3)'", "RuntimeError SystemExit: 3"),
        ("'1 /'", "RuntimeError SyntaxError: invalid syntax (<string>, line 1)"),
        ("'raise ValueError(\"text é\")'", "RuntimeError ValueError: text é"),
        ("'import _testsinglephase'", None),
        (
            "'class E(Exception):\\n def __str__(self): raise MemoryError\\nraise E'",
            "RuntimeError E: (it has no text)",
        ),
        ("'raise ValueError(\"x\" * 9000)'", "RuntimeError ValueError: " + "x" * 1011),
    ],
    ids=["quiet", "exit", "syntax", "text", "refuses", "textless", "long"],
)
def test_what_ends_a_program(program: str, expected: str | None) -> None:
    answer = interpreter(program)
    if expected is not None:
        assert answer == expected
    elif "No module named" in answer:
        pytest.skip("this Python comes without its test modules")
    else:
        assert answer == (
            "RuntimeError ImportError: "
            "module _testsinglephase does not support loading in subinterpreters"
        )


@own_gil
def test_only_the_main_interpreter_makes_others() -> None:
    # The path of the fresh process: servers of other tests have left their folders in this one's.
    program = (
        "'import sys; sys.path[:] = ' + ascii(sys.path) + "
        "'; from ppserver import _native; _native.run_interpreter(\"pass\")'"
    )
    assert interpreter(program) == (
        "RuntimeError RuntimeError: only the main interpreter makes others"
    )


@own_gil
def test_daemon_threads_are_allowed_and_fork_is_not() -> None:
    program = ascii(
        "import os, threading\n"
        "started = threading.Event()\n"
        "threading.Thread(target=lambda: (started.set(), threading.Event().wait()), daemon=True)"
        ".start()\n"
        "started.wait()\n"
        "try:\n"
        "    os.fork()\n"
        "except RuntimeError as error:\n"
        "    raise SystemExit(str(error))\n"
    )
    assert interpreter(program) == (
        "RuntimeError SystemExit: fork not supported for isolated subinterpreters"
    )


def test_is_built_for_this_interpreter() -> None:
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    assert str(_native.__file__).endswith(str(suffix))
