"""Freezing what the collector cannot look into: NumPy arrays, pandas frames, tries, buffers."""

from __future__ import annotations

import array
import importlib
import mmap
from types import ModuleType
from typing import Any

import pytest
import serving
from snippets import run_python

import ppserver
from ppserver import _native, freezing

state, reason = _native.freeze_support()
pytestmark = pytest.mark.skipif(state != "on", reason=reason or "-")


@pytest.fixture
def numpy() -> ModuleType:
    serving.optional("numpy")
    return importlib.import_module("numpy")


def frozen(objects: Any) -> list[bool]:
    return [ppserver.is_frozen(one) for one in objects]


def test_object_arrays(numpy: Any) -> None:
    whole = numpy.array([[f"a{i}", [i], None] for i in range(90)], dtype=object)
    view = whole[::3, ::2]
    empty = numpy.empty(3, dtype=object)
    scalar = numpy.array([None], dtype=object).reshape(())
    scalar[()] = ["in no dimension"]
    fortran = numpy.asfortranarray(whole.copy())
    ppserver.freeze(view, empty, scalar, fortran)
    assert all(frozen(view.ravel()))
    assert ppserver.is_frozen(view.base)
    assert all(frozen(whole.ravel())), "what lies beneath a view is reachable, too"
    assert all(frozen([empty, scalar, scalar[()]]))
    assert all(frozen(fortran.ravel()))


def test_the_allocator_of_arrays(numpy: Any) -> None:
    ppserver.freeze(numpy.zeros(3))
    (allocator,) = freezing._allocator(numpy)
    assert "mem_handler" in repr(allocator)
    assert ppserver.is_frozen(allocator)


def test_structured_arrays(numpy: Any) -> None:
    inner = [("name", object), ("size", "f8")]
    data = numpy.zeros(3, dtype=[("n", "i4"), ("o", object), ("in", inner), ("s", object, (2, 2))])
    data["o"] = [[1], [2], [3]]
    data["in"]["name"] = [f"name {i}" for i in range(3)]
    data["s"][:] = [[["x"]]]
    ppserver.freeze(data)
    assert all(frozen([data, *data["o"], *data["in"]["name"], *data["s"].ravel()]))
    assert all(frozen(data.dtype.names))
    assert all(frozen(data.dtype.fields.values()))


def test_subclasses_of_arrays(numpy: Any) -> None:
    class Kept(numpy.ndarray):  # type: ignore[misc,name-defined]
        pass

    kept = numpy.arange(5.0).view(Kept)
    kept.extra = ["extra"]
    masked = numpy.ma.masked_array(numpy.array(["a", ["b"]], dtype=object), mask=[True, False])
    ppserver.freeze(kept, masked)
    assert all(frozen([kept, kept.extra, kept.extra[0], kept.base, masked, *masked.data]))


def test_bytes_of_buffers(numpy: Any) -> None:
    for data in (
        numpy.zeros(1_000_000, dtype="u1"),
        array.array("d", range(125_000)),
        mmap.mmap(-1, 1_000_000),
    ):
        report = ppserver.freeze(data)
        assert 1_000_000 <= report.bytes < 1_050_000
        assert ppserver.is_frozen(data)
    view = numpy.zeros(1_000_000, dtype="u1")[10:]
    assert 1_000_000 <= ppserver.freeze(view).bytes < 1_010_000  # Its base owns them.


def test_a_closed_mapping_is_no_reason_to_fail() -> None:
    mapping = mmap.mmap(-1, 4096)
    mapping.close()
    ppserver.freeze([mapping])
    assert ppserver.is_frozen(mapping)


def test_frames() -> None:
    serving.optional("pandas")
    # Freezing a frame freezes pandas: in a process of its own.
    run_python(
        """
        import warnings
        warnings.simplefilter("ignore")
        import numpy, pandas
        import ppserver
        names = ["k%d" % i for i in range(100)]
        frame = pandas.DataFrame(
            {
                "number": numpy.arange(100),
                "object": [[i] for i in range(100)],
                "text": ["text %d" % i for i in range(100)],
                "category": pandas.Categorical(["u", "v"] * 50),
                "time": pandas.date_range("2020", periods=100),
            },
            index=names,
        )
        frame.loc["k5"]
        lists = list(frame["object"])
        text = frame["text"].array
        series = pandas.Series([("a",), ("b",)])
        inside = list(series)
        ppserver.freeze({"frame": frame, "series": series})
        frozen = ppserver.is_frozen
        assert frozen(frame) and frozen(frame._mgr)
        assert all(map(frozen, lists)), "object column"
        assert all(map(frozen, inside)), "object series"
        assert frozen(text)
        if hasattr(text, "_ndarray"):
            assert all(map(frozen, text._ndarray)), "text column"
        for block in frame._mgr.blocks:
            assert frozen(block) and frozen(block.values)
        assert all(map(frozen, frame["category"].array.categories._values))
        # And it goes on working, also when changed.
        assert frame.loc["k7", "number"] == 7 and frame["text"].str.upper()["k3"] == "TEXT 3"
        frame.loc["k7", "number"] = 8
        frame["new"] = frame["number"] * 2
        assert frame.loc["k7", "new"] == 16
        assert len(frame.groupby("category", observed=True)["number"].sum()) == 2
        """
    )


def test_tries() -> None:
    serving.optional("datrie")
    run_python(
        """
        import warnings
        warnings.simplefilter("ignore")
        import datrie
        import ppserver
        trie = datrie.Trie("abcdef")
        for number, word in enumerate(("abc", "fed", "cab")):
            trie[word] = 1000 + number
        trie["faa"] = ["value"]
        ppserver.freeze(trie)
        assert all(map(ppserver.is_frozen, [trie, trie["abc"], trie["faa"], trie["faa"][0]]))
        assert trie.keys("f") == ["faa", "fed"] and trie.longest_prefix_value("abcd") == 1000
        """
    )


def test_an_array_that_cannot_be_looked_into(numpy: Any) -> None:
    class Odd(numpy.ndarray):  # type: ignore[misc,name-defined]
        @property
        def base(self) -> Any:
            raise RuntimeError("not now")

    odd = numpy.zeros(3).view(Odd)
    assert freezing._expand(odd) == ([], 0)
    ppserver.freeze([odd])
    assert ppserver.is_frozen(odd)
