"""coverage.py measures what forked contexts run, without settings of its own."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys

import pytest
import serving

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(serving.PEER != "ppserver", reason="processes of ppserver"),
]

APP = """\
def answer():
    return [b"ok"]


def app(environ, start_response):
    start_response("200 OK", [])
    return answer()


def never():
    return 1
"""


def test_contexts_are_measured(tmp_path: pathlib.Path) -> None:
    serving.optional("coverage")
    (tmp_path / "shop.py").write_text(APP)
    python = [sys.executable, "-m", "coverage"]
    served = ["ppserver", "shop:app", "--port", "0", "--app-dir", str(tmp_path)]
    served += ["--cores", "2", "--contexts", "processes"]
    command = [*python, "run", f"--include={tmp_path}/*", "-m", *served]
    server = serving.Server(command, serving._environment(tmp_path, {}), tmp_path)
    server.allow("CoverageWarning")
    with serving.stopping(server):
        server.wait_started()
        for _ in range(4):
            assert serving.get(server.url).text == "ok"
    for arguments in (["combine"], ["json", "-o", "report"]):
        subprocess.run(
            [*python, *arguments], cwd=tmp_path, check=True, capture_output=True, text=True
        )
    (found,) = json.loads((tmp_path / "report").read_text())["files"].values()
    assert found["missing_lines"] == [11], "all but the body of never()"
