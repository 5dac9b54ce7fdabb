"""`tests/matrix.py`: what its tables say is what runs, and they name what there is."""

from __future__ import annotations

import matrix
import pytest

TABLE: matrix.Table = {
    "integration/test_a.py": {"variant": "asyncio-1-auto uvloop-2-processes"},
    "integration/test_never.py": {"never": ""},
    "integration/*": {"loop": "asyncio", "kind+site": "b-x b-y"},
}


def test_every_pattern_fits_a_file() -> None:
    files = [path.relative_to(matrix.TESTS).as_posix() for path in matrix.TESTS.rglob("test_*.py")]
    assert matrix.unknown(files) == []


@pytest.mark.parametrize(
    ("file", "params", "expected"),
    [
        ("integration/test_a.py", {"variant": ("asyncio", 1, "auto"), "loop": "uvloop"}, True),
        ("integration/test_a.py", {"variant": ("uvloop", 1, "auto")}, False),
        ("integration/test_a.py", {}, True),
        ("integration/test_never.py", {}, False),
        ("integration/test_b.py", {"loop": "uvloop"}, False),
        ("integration/test_b.py", {"loop": "asyncio", "kind": "b", "site": "y"}, True),
        ("integration/test_b.py", {"loop": "asyncio", "kind": "a", "site": "x"}, False),
        ("integration/test_b.py", {"kind": "a"}, True),
    ],
)
def test_a_table(file: str, params: dict[str, object], expected: bool) -> None:
    assert matrix.fits(file, params, TABLE, others=False) is expected


def test_what_no_pattern_fits() -> None:
    assert matrix.fits("unit/test_c.py", {}, TABLE, others=True)
    assert not matrix.fits("unit/test_c.py", {}, TABLE, others=False)


def test_make_test_runs_what_nobody_chose() -> None:
    assert matrix.runs("integration/test_new.py", {"loop": "uvloop"}, "")
    assert not matrix.runs("examples/test_new.py", {}, "asan")


def test_a_parameter_is_its_parts() -> None:
    assert matrix.text_of(("asyncio", "worker", "")) == "asyncio-worker"
    assert matrix.text_of("asyncio") == "asyncio"


def test_only_what_is_named_runs_regardless(request: pytest.FixtureRequest) -> None:
    own, file = request.node, f"{matrix.TESTS}/unit/test_matrix.py"
    name = "test_only_what_is_named_runs_regardless"
    assert matrix.is_named(own, f"{file}::{name}")
    assert not matrix.is_named(own, f"{file}::{name[:-1]}")
    assert not matrix.is_named(own, f"{file}x::{name}")
