"""Functions that run once before contexts start."""

from __future__ import annotations

import asyncio
import pathlib
import sys
from collections.abc import Iterator

import pytest

import ppserver
from ppserver.app import hooks
from ppserver.config import Config
from ppserver.errors import ConfigError, LoadError, StartupError


@pytest.fixture(autouse=True)
def nothing_registered() -> Iterator[None]:
    kept = (hooks._registered, hooks._at_stop, hooks._at_context_start, hooks._at_context_stop)
    for functions in kept:
        functions.clear()
    yield
    for functions in kept:
        functions.clear()


@pytest.fixture
def module(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Source code goes into this module; gives the folder."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield str(tmp_path)
    sys.modules.pop("hooked", None)


def write(folder: str, source: str) -> None:
    pathlib.Path(folder, "hooked.py").write_text(source)


def test_order_and_once() -> None:
    calls: list[int] = []

    @ppserver.on_start
    def first() -> None:
        calls.append(1)
        ppserver.on_start(lambda: calls.append(3))

    ppserver.on_start(lambda: calls.append(2))
    assert callable(first), "the decorator gives the function back"
    hooks.run(Config("a:b"))
    assert calls == [1, 2, 3]
    hooks.run(Config("a:b"))
    assert calls == [1, 2, 3]


def test_only_functions() -> None:
    with pytest.raises(TypeError, match="not callable"):
        ppserver.on_start("module:function")  # type: ignore[type-var]


def test_the_setting_comes_last(module: str) -> None:
    write(
        module,
        "import ppserver\n"
        "calls = []\n"
        "@ppserver.on_start\n"
        "def both():\n    calls.append('both')\n"
        "def named():\n    calls.append('named')\n"
        "class Group:\n    load = staticmethod(lambda: calls.append('method'))\n",
    )
    hooks.run(Config("a:b", app_dir=module, on_start="hooked:named"))
    hooks.run(Config("a:b", app_dir=module, on_start="hooked:Group.load"))
    assert sys.modules["hooked"].calls == ["both", "named", "method"]


def test_named_and_registered_is_called_once(module: str) -> None:
    write(
        module,
        "import ppserver\ncalls = []\n@ppserver.on_start\ndef load():\n    calls.append(1)\n",
    )
    hooks.run(Config("a:b", app_dir=module, on_start="hooked:load"))
    assert sys.modules["hooked"].calls == [1]


def test_a_failure_ends_the_start(module: str) -> None:
    write(module, "def load():\n    helper()\ndef helper():\n    raise KeyError('no data')\n")
    with pytest.raises(LoadError, match=r"on_start: load failed: KeyError: 'no data'") as caught:
        hooks.run(Config("a:b", app_dir=module, on_start="hooked:load"))
    assert isinstance(caught.value, StartupError)
    assert caught.value.exit_code == 3
    assert "in helper" in caught.value.trace
    assert "hooks.py" not in caught.value.trace


def test_exit_is_a_failure(module: str) -> None:
    ppserver.on_start(lambda: sys.exit(0))
    with pytest.raises(LoadError, match="SystemExit"):
        hooks.run(Config("a:b"))


def test_async_functions_are_refused() -> None:
    @ppserver.on_start
    async def load() -> None:
        pass

    with pytest.raises(LoadError, match="async function") as caught:
        hooks.run(Config("a:b"))
    assert caught.value.hint


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("hooked:missing", "on_start: module 'hooked' has no attribute 'missing'"),
        ("hooked:number", "on_start: hooked:number is not a function"),
        ("not_there:load", "on_start: there is no module 'not_there'"),
    ],
)
def test_what_cannot_be_found(module: str, target: str, message: str) -> None:
    write(module, "number = 5\n")
    with pytest.raises(LoadError, match=message):
        hooks.resolve(Config("a:b", app_dir=module, on_start=target))


@pytest.mark.parametrize("text", ["", "module", "module:", ":load", "module:load()", "a b:c"])
def test_what_is_no_name(text: str) -> None:
    with pytest.raises(ConfigError, match="on_start"):
        Config("a:b", on_start=text)


def test_stop_runs_backwards_and_once() -> None:
    calls: list[int] = []
    ppserver.on_stop(lambda: calls.append(1))
    ppserver.on_stop(lambda: calls.append(2))
    assert hooks.stop(Config("a:b"))
    assert calls == [2, 1]
    assert hooks.stop(Config("a:b"))
    assert calls == [2, 1]


def test_a_failing_stop_does_not_keep_the_others_from_running(
    caplog: pytest.LogCaptureFixture,
) -> None:
    calls: list[int] = []
    ppserver.on_stop(lambda: calls.append(1))
    ppserver.on_stop(lambda: sys.exit(1))
    assert not hooks.stop(Config("a:b"))
    assert calls == [1]
    assert "on_stop: " in caplog.text


def test_context_hooks_run_in_every_context() -> None:
    calls: list[str] = []

    @ppserver.on_context_start
    async def start() -> None:
        calls.append("start")

    @ppserver.on_context_stop
    def stop() -> None:
        calls.append("stop")

    for _ in range(2):
        asyncio.run(hooks.start_context(Config("a:b"), "asgi"))
        assert asyncio.run(hooks.stop_context(Config("a:b"), "asgi"))
    assert calls == ["start", "stop"] * 2
    with pytest.raises(LoadError, match="async function"):
        asyncio.run(hooks.start_context(Config("a:b"), "wsgi"))


def test_names_of_all_hooks_are_checked_at_the_start(module: str) -> None:
    write(module, "def load():\n    pass\n")
    with pytest.raises(LoadError, match="on_context_stop: module 'hooked' has no attribute 'no'"):
        hooks.run(Config("a:b", app_dir=module, on_context_stop="hooked:no"))
