"""What `--loop` comes to: see `ppserver.context.eventloop`."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest

from ppserver.config import Config
from ppserver.context import eventloop
from ppserver.errors import ConfigError
from ppserver.machine import gil


@pytest.fixture(params=["with a GIL", "free-threaded"])
def free(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether this is as on a free-threaded Python; uvloop is installed either way."""
    free = bool(request.param == "free-threaded")
    uvloop = ModuleType("uvloop")
    vars(uvloop)["new_event_loop"] = lambda: None
    monkeypatch.setitem(sys.modules, "uvloop", uvloop)
    monkeypatch.setattr(gil, "FREE_THREADED", free)
    return free


def test_auto_takes_uvloop_where_it_can(free: bool) -> None:
    assert eventloop.choose(Config()) == ("asyncio" if free else "uvloop")
    assert eventloop.choose(Config(loop="asyncio")) == "asyncio"
    assert eventloop.choose(Config(loop="uvloop")) == "uvloop"


@pytest.mark.skipif(sys.version_info < (3, 13), reason="refused before Python 3.13")
def test_auto_is_asyncio_in_interpreters(free: bool) -> None:
    assert eventloop.choose(Config("m:app", contexts="interpreters")) == "asyncio"


def test_auto_is_asyncio_without_uvloop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvloop", None)
    assert eventloop.choose(Config()) == "asyncio"
    with pytest.raises(ConfigError, match="uvloop is not installed"):
        eventloop.uvloop_factory()


def test_only_asgi_has_a_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvloop", None)
    assert eventloop.settle(Config(), "asgi").loop == "asyncio"
    assert eventloop.settle(Config(), "wsgi").loop == "auto"
