"""Applications around other libraries: a pandas frame, a handler in Cython."""

from __future__ import annotations

import contextlib
import os
import pathlib
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import serving

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(serving.PEER != "ppserver", reason="an API of ppserver"),
]

EXAMPLES = serving.ROOT / "examples"
ROWS = """carrier,month,delay
A,1,10
A,2,20
B,1,-5
B,2,
C,2,
"""


@contextlib.contextmanager
def serving_program(
    directory: pathlib.Path, *command: str, path: str = ""
) -> Iterator[httpx.Client]:
    """A client of what a program serves, by python on a free port; two contexts."""
    settings = {
        "PPSERVER_BIND": "127.0.0.1:0",
        "PPSERVER_CORES": "2",
        # NumPy and Cython's modules refuse interpreters of their own.
        "PPSERVER_CONTEXTS": os.environ.get("TEST_PLACE", "auto").replace("interpreters", "auto"),
    }
    environ = serving._environment(directory, settings)
    environ["PYTHONPATH"] = os.pathsep.join(filter(None, [path, environ.get("PYTHONPATH", "")]))
    with serving.stopping(serving.Server([sys.executable, *command], environ, directory)) as server:
        server.wait_started()
        with serving.client(f"http://127.0.0.1:{server.port}") as client:
            yield client


def test_pandas(tmp_path: pathlib.Path) -> None:
    serving.require("pandas", "numpy", "h11")
    table = tmp_path / "flights.csv"
    table.write_text(ROWS)
    with serving_program(tmp_path, str(EXAMPLES / "pandas_app.py"), str(table)) as client:
        about = client.get("/").json()
        assert about["rows"] == 5
        assert list(about["columns"]) == ["carrier", "month", "delay"]

        def group(path: str) -> Any:
            answer = client.get(f"/group/{path}")
            return answer.json() if answer.status_code == 200 else answer.status_code

        assert group("carrier?of=delay") == {"A": 15.0, "B": -5.0, "C": None}
        assert group("month?of=delay&how=max") == {"1": 10.0, "2": 20.0}
        assert group("carrier?of=delay&how=count&month=2") == {"A": 1, "B": 0, "C": 0}
        assert group("carrier?of=delay&month=9") == {}
        for wrong in ("nothing?of=delay", "carrier?of=carrier", "carrier?of=delay&how=eval", ""):
            assert group(wrong) == 400
        assert group("carrier?of=delay&nothing=1") == 400


def test_the_frame_that_is_made_up() -> None:
    serving.require("pandas", "numpy", "h11")
    code = (
        "import sys; sys.argv = ['x']\n"
        "import parallel; parallel.run = parallel.register = lambda **_: None\n"
        f"exec(open({str(EXAMPLES / 'pandas_app.py')!r}).read())\n"
        "print(made_up(1000, 7).equals(made_up(1000, 7)), len(frame), frame.delay.isna().any())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=serving.MUST_SECONDS,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        check=True,
    )
    assert done.stdout.split() == ["True", "1000000", "False"]


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A folder with the compiled handler, built by its own pyproject."""
    serving.require("Cython", "setuptools", "h11")
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("compiled")
    for name in ("pyproject.toml", "setup.py", "mandelbrot.pyx"):  # It builds beside its sources.
        (source / name).write_bytes((EXAMPLES / "cython_app" / name).read_bytes())
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pip", "install", "--quiet", "--no-build-isolation"),
            *("--no-deps", "--no-index", "--target", target, source),
        ],
        capture_output=True,
        text=True,
        timeout=serving.MUST_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return target


@pytest.mark.skipif("TEST_SANITIZER" in os.environ, reason="it is compiled without")
def test_cython(compiled: pathlib.Path, tmp_path: pathlib.Path) -> None:
    program = str(EXAMPLES / "cython_app" / "app.py")
    with serving_program(tmp_path, program, path=str(compiled)) as client:
        answer = client.get("/picture?size=64&x=-0.5&y=0&width=3")
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "image/x-portable-graymap"
        head, pixels = answer.content[:14], answer.content[13:]
        assert head.startswith(b"P5 64 64 255\n")
        assert len(pixels) == 64 * 64
        assert pixels[32 * 64 + 32] == 0  # -0.5 belongs to the set,
        assert pixels[0] == 254  # -2 - 1.5i leaves at once.
        for wrong in ("size=0", "size=9999", "size=x", "x=&size=3", "iterations=0"):
            assert client.get(f"/picture?{wrong}").status_code == 400


def test_a_handler_that_is_not_compiled(tmp_path: pathlib.Path) -> None:
    serving.require("h11")
    done = subprocess.run(
        [sys.executable, EXAMPLES / "cython_app" / "app.py"],
        capture_output=True,
        text=True,
        timeout=serving.MUST_SECONDS,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        check=False,
    )
    assert done.returncode == 1
    assert "pip install examples/cython_app" in done.stderr
    assert not done.stdout
