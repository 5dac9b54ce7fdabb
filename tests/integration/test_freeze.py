"""Load once: what contexts un-share by reading, and how loading goes right and wrong."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import sys
from typing import Any

import pytest
import serving

from ppserver import _native
from ppserver.config import HOOKS

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(serving.PEER != "ppserver", reason="freezing is ppserver's own"),
]

IMMORTAL = _native.freeze_support()[0] == "on"
MORE = bool(os.environ.get("TEST_MORE"))
MB = 1_000_000
plain_memory = pytest.mark.skipif(
    "TEST_SANITIZER" in os.environ, reason="a sanitizer's allocator has pages of its own to write"
)


def measured(
    directory: pathlib.Path, kind: str, size: int, *args: str
) -> tuple[dict[str, Any], str]:
    """What a context of two says of its memory after it has read all the data; and the log."""
    with serving.running(
        "frozen:app",
        directory,
        contexts=2,
        args=["--contexts", "processes", "--no-access-log", *args],
        env={
            "TEST_KIND": kind,
            "TEST_SIZE": str(size),
            # Importing pandas or a trie may switch the GIL back on, and says so.
            "PYTHONWARNINGS": "default,ignore::RuntimeWarning",
        },
    ) as server:
        answer = json.loads(serving.get(server.url, timeout=300).text)
        assert server.records() == [f"on_start {kind}"], "loaded once, not in each context"
        assert answer["wrong"] == 0
        return answer, server.log


# What a context un-shares of the data of each kind without freezing, in bytes per item: at least
# a reference count's page or its share of one.
HEADLINE = {"lists": (100_000, 60), "trie": (100_000, 20), "frame": (100_000, 40)}


@plain_memory
@pytest.mark.skipif(not IMMORTAL, reason=_native.freeze_support()[1] or "-")
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", HEADLINE)
def test_reading_shared_data_does_not_unshare_it(tmp_path: pathlib.Path, kind: str) -> None:
    """A million-entry trie, a dict of small lists, a frame with an object column."""
    serving.optional({"trie": "datrie", "frame": "pandas"}.get(kind, "json"))
    size, bytes_per_item = HEADLINE[kind]
    if MORE:
        size = 1_000_000
    frozen, log = measured(tmp_path, kind, size)
    (tmp_path / "record").unlink()
    mortal, other = measured(tmp_path, kind, size, "--no-freeze")
    print(kind, size, frozen["unshared"], mortal["unshared"])
    assert frozen["frozen"]
    assert not mortal["frozen"]
    assert "data frozen after load: " in log
    assert "data not frozen after load: --no-freeze)" in other
    assert mortal["unshared"] > size * bytes_per_item
    assert frozen["unshared"] < max(0.05 * mortal["unshared"], 0.5 * MB)


@plain_memory
@pytest.mark.parametrize("kind", ["numpy", "bytes", "array", "mmap"])
def test_flat_data_stays_shared_on_every_version(tmp_path: pathlib.Path, kind: str) -> None:
    serving.optional("numpy")
    answer, _ = measured(tmp_path, kind, 1_000_000)
    assert answer["unshared"] < 0.5 * MB  # of 8


@plain_memory
@pytest.mark.skipif(IMMORTAL, reason="there are immortal objects here")
def test_lists_come_apart_where_there_are_no_immortal_objects(tmp_path: pathlib.Path) -> None:
    answer, log = measured(tmp_path, "ints", 200_000)
    assert answer["unshared"] > 200_000 * 24
    assert f"data not frozen after load: {_native.freeze_support()[1]})" in log


LOADS = """
import os, sys
import ppserver

sys.path.insert(0, os.environ["TEST_APPS"])
from support import record

@ppserver.on_start
def first():
    record(f"first {loaded}")

def second():
    record("second")
    loaded.append(1)
    if os.environ.get("TEST_FAIL"):
        helper()

def helper():
    raise LookupError("the data is not there")

loaded = []

def app(environ, start_response):
    start_response("200 OK", [])
    if environ["PATH_INFO"] == "/freeze":
        try:
            ppserver.freeze([1])
            return [b"done"]
        except RuntimeError as error:
            return [str(error).encode()]
    return [f"{len(loaded)} {ppserver.is_frozen(loaded)}".encode()]
"""


@pytest.fixture
def application(tmp_path: pathlib.Path) -> dict[str, Any]:
    (tmp_path / "loads.py").write_text(LOADS)
    return {
        "args": ["--app-dir", str(tmp_path), "--on-start", "loads:second"],
        "env": {"TEST_APPS": str(serving.APPS)},
        "interface": "wsgi",
    }


@pytest.mark.parametrize("contexts", [1, 2])
def test_on_start_runs_once_in_order(
    tmp_path: pathlib.Path, application: dict[str, Any], contexts: int
) -> None:
    place = serving.SHARING if contexts > 1 else None
    with serving.running(
        "loads:app", tmp_path, contexts=contexts, place=place, **application
    ) as server:
        # One context shares its data with nobody: it is left as it is.
        assert serving.get(server.url).text == f"1 {IMMORTAL and contexts > 1}"
        assert server.records() == ["first []", "second"]
        # Whether it is frozen is said on every version, and why not.
        said = "data frozen after load: "
        if contexts == 1:
            said = "data not frozen after load: one context shares it with nobody"
        elif not IMMORTAL:
            said = f"data not frozen after load: {_native.freeze_support()[1]})"
        assert server.log.count(said) == 1
        assert server.log.index("Started") < server.log.index("running on")


@pytest.mark.parametrize("contexts", [1, 2])
def test_on_start_that_fails_ends_the_start(
    tmp_path: pathlib.Path, application: dict[str, Any], contexts: int
) -> None:
    application["env"]["TEST_FAIL"] = "1"
    server = serving.launch("loads:app", tmp_path, contexts=contexts, **application)
    assert server.wait() == 3
    assert "ppserver: error: on_start: second failed: LookupError: the data is not" in server.log
    assert "in helper" in server.log
    assert "hooks.py" not in server.log
    assert server.records() == ["first []", "second"]


def test_threads_share_frozen_data(tmp_path: pathlib.Path, application: dict[str, Any]) -> None:
    application["args"] += ["--contexts", "threads"]
    with serving.running("loads:app", tmp_path, contexts=2, **application) as server:
        assert serving.get(server.url).text == f"1 {IMMORTAL and serving.FREE_THREADED}"
        reason = "threads of one GIL do not fight over reference counts"
        if serving.FREE_THREADED:
            reason = _native.freeze_support()[1]
        said = f"data not frozen after load: {reason})" if reason else "data frozen after load: "
        assert said in server.log
        answer = serving.get(f"{server.url}/freeze").text
        late = "freeze() has to be called before contexts run"
        assert answer == (late if serving.FREE_THREADED else "done")
        assert server.records() == ["first []", "second"]


@pytest.mark.skipif(sys.version_info < (3, 13), reason="interpreters need Python 3.13")
def test_interpreters_each_load_for_themselves(
    tmp_path: pathlib.Path, application: dict[str, Any]
) -> None:
    application["args"] += ["--contexts", "interpreters"]
    with serving.running("loads:app", tmp_path, contexts=2, **application) as server:
        assert serving.get(server.url).text == "1 False"
        assert serving.get(f"{server.url}/freeze").text == "done"
        assert server.records() == ["first []", "second"] * 2
        assert "data not frozen after load: interpreters share no objects)" in server.log


def test_processes_may_freeze_for_themselves(
    tmp_path: pathlib.Path, application: dict[str, Any]
) -> None:
    application["args"] += ["--contexts", "processes"]
    with serving.running("loads:app", tmp_path, contexts=2, **application) as server:
        assert serving.get(f"{server.url}/freeze").text == "done"


def test_a_reload_loads_anew(tmp_path: pathlib.Path, application: dict[str, Any]) -> None:
    options = {"contexts": 2, "place": serving.SHARING, **application}
    with serving.running("loads:app", tmp_path, **options) as server:
        os.kill(server.pid, signal.SIGHUP)
        server.wait_for_log("Reloaded")
        assert server.records() == ["first []", "second"] * 2
        assert serving.get(server.url).text == f"1 {IMMORTAL}"


@pytest.mark.parametrize("hook", HOOKS)
def test_check_config_looks_for_the_function(
    tmp_path: pathlib.Path, application: dict[str, Any], hook: str
) -> None:
    flag = f"--{hook.replace('_', '-')}"
    args = [*application["args"][:2], "--check-config", flag, "loads:third"]
    server = serving.launch("loads:app", tmp_path, **{**application, "args": args})
    assert server.wait() == 3
    assert f"{hook}: module 'loads' has no attribute 'third'" in server.log
    assert server.records() == []


def test_it_says_when_it_cannot(tmp_path: pathlib.Path, application: dict[str, Any]) -> None:
    if not (IMMORTAL and _native.BUILD["assertions"]):
        pytest.skip("needs immortal objects and a build with assertions")
    application["env"]["TEST_FREEZE_LAYOUT"] = "wrong"
    options = {"contexts": 2, "place": serving.SHARING, **application}
    with serving.running("loads:app", tmp_path, **options) as server:
        server.allow("RuntimeWarning: nothing can be frozen")
        assert serving.get(server.url).text == "1 False"
        assert "Nothing can be frozen: this Python does not lay objects out" in server.log
    assert sys.version_info >= (3, 12)
