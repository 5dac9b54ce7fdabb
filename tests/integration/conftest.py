"""What several of these modules need: programs that are started."""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Callable
from typing import Any

import pytest
import serving

Start = Callable[..., serving.Server]


@pytest.fixture
def command(tmp_path: pathlib.Path, started: list[serving.Server]) -> Start:
    """``command(app, *args, contexts=1)``: by ppserver, in the folder of the test."""

    def start(app: str, *args: str, **options: Any) -> serving.Server:
        folder = [] if "--app-dir" in args else ["--app-dir", str(tmp_path)]
        started.append(serving.launch(app, tmp_path, args=[*folder, *args], **options))
        return started[-1]

    return start


@pytest.fixture
def run(tmp_path: pathlib.Path, started: list[serving.Server]) -> Start:
    """``run(program)``: the text as a file, by python."""

    def start(program: str, env: dict[str, str] | None = None) -> serving.Server:
        path = tmp_path / "program.py"
        path.write_text(program)
        environ = serving._environment(tmp_path, env or {})
        started.append(serving.Server([sys.executable, str(path)], environ, tmp_path))
        return started[-1]

    return start
