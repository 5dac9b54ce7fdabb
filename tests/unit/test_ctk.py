"""The helpers that programs of PyParallel import from ``ctk.util``."""

from __future__ import annotations

import copy
import importlib
import pathlib
import pickle
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

CONTRIB = pathlib.Path(__file__).resolve().parents[2] / "contrib"


@pytest.fixture
def util() -> Iterator[ModuleType]:
    """``ctk.util`` as it is in the checkout."""
    kept = {name: sys.modules.pop(name) for name in ("ctk", "ctk.util") if name in sys.modules}
    sys.path.insert(0, str(CONTRIB))
    try:
        yield importlib.import_module("ctk.util")
    finally:
        sys.path.remove(str(CONTRIB))
        for name in ("ctk", "ctk.util"):
            sys.modules.pop(name, None)
        sys.modules.update(kept)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("3", 3),
        (" -12\n", -12),
        (b"7", 7),
        (5, 5),
        (True, 1),
        (2.0, 2),
        (10**30, 10**30),
        ("", None),
        ("x", None),
        ("3.5", None),
        (3.5, None),
        (float("nan"), None),
        (float("inf"), None),
        (None, None),
        ([], None),
        ("9" * 10_000, None),  # More digits than Python converts.
    ],
    ids=lambda value: repr(value)[:20],
)
def test_try_int(util: ModuleType, value: Any, expected: int | None) -> None:
    found = util.try_int(value)
    assert found == expected
    assert found is None or type(found) is int


def test_dict(util: ModuleType) -> None:
    d = util.Dict(x=1)
    assert d.x == d["x"] == 1
    d.y = 2
    assert d == {"x": 1, "y": 2}
    assert {"x", "y", "items"} <= set(dir(d))
    del d.x
    assert d == {"y": 2}
    with pytest.raises(AttributeError, match="'Dict' object has no attribute 'x'"):
        assert d.x
    with pytest.raises(AttributeError):
        del d.x
    assert getattr(d, "x", 5) == 5
    assert not hasattr(d, "x")
    d["items"] = 3
    assert dict(d.items()) == {"y": 2, "items": 3}


def test_copies_of_a_dict(util: ModuleType) -> None:
    d = util.Dict(x=[1], __deepcopy__="an item, not a method", __reduce_ex__=1)
    for other in (d.copy(), copy.copy(d), copy.deepcopy(d), pickle.loads(pickle.dumps(d))):
        assert type(other) is util.Dict
        assert other == d
        other.z = 1
        assert "z" not in d
    assert copy.deepcopy(d).x is not d.x


class Clock:
    def __init__(self, *times: float) -> None:
        self.times = list(times)

    def __call__(self) -> float:
        return self.times.pop(0)


def test_timer(util: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    t = util.timer(clock=Clock(10.0, 10.5, 12.0, 20.0, 21.0))
    assert t.elapsed == 0
    with t as same:
        assert same is t
        assert t.elapsed == 0.5
    assert t.elapsed == t.elapsed == 2.0
    assert repr(t) == "<timer: 2.000000 s>"
    with t:
        pass
    assert t.elapsed == 1.0
    assert capsys.readouterr().out == ""


def test_timeit(util: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    with util.timer.timeit(clock=Clock(1.0, 1.25)):
        pass
    assert capsys.readouterr().out == "0.250000 s\n"
    with pytest.raises(LookupError), util.timer.timeit():
        raise LookupError
    assert capsys.readouterr().out.endswith(" s\n")
