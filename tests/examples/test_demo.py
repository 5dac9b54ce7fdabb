"""The README's main command, from where the server is built."""

from __future__ import annotations

import pathlib
import re
import signal
import sys

import pytest
import serving

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(serving.PEER != "ppserver", reason="an API of ppserver"),
]


def test_the_demo(tmp_path: pathlib.Path) -> None:
    serving.require("pyodbc", "datrie", "numpy", "h11")
    folder = tmp_path / "demo"
    gil_off = {"PYTHON_GIL": "0"} if serving.FREE_THREADED else {}
    command = [sys.executable, "-m", "examples.demo", "--folder", str(folder)]
    command += ["--pages", "200", "--tefb-port", "0", "--wiki-port", "0", "--cores", "2"]
    for time in ("first", "second"):
        server = serving.Server(command, serving._environment(tmp_path, gil_off), tmp_path)
        try:
            server.wait_for_log(r"(?s)running on http.*running on http")
            if "there is no ODBC driver" in server.log:
                pytest.skip("the ODBC driver is not installed (apt-get install libsqliteodbc)")
            # What takes time is made once.
            assert ("making a dump" in server.log) == (time == "first")
            tefb, wiki = re.findall(r"running on (http://[0-9.:]+)", server.log)
            assert serving.get(f"{tefb}/db").json()["id"] >= 1
            assert "フレームワーク" in serving.get(f"{tefb}/fortunes").text
            titles = serving.get(f"{wiki}/title/?limit=3")
            assert titles.status_code == 400  # no title at all
            title = serving.get(f"{wiki}/title/A?limit=1").json()[0]
            assert f"<title>{title}</title>" in serving.get(f"{wiki}/wiki/{title}").text
            assert "Wiki search" in serving.get(wiki).text
            server.process.send_signal(signal.SIGINT)
            assert server.wait() == 0
        except BaseException:
            server.kill()
            server.wait()
            raise
