"""A WSGI application may do what it likes, too."""

from __future__ import annotations

import concurrent.futures
import pathlib
import sys
from collections.abc import Iterator

import pytest
import serving
from rawhttp import ClosedError, Raw, Response

sys.path.insert(0, str(serving.APPS))
from hostile_wsgi import DEEDS

ANY_EXCEPTION = r"^(\w+\.)*(\w*(Error|Exit))\b"
GOOD = ("hello", "uses-it-all-later", "reads-oddly", "ruins-its-environ", "blocks")
GOOD += ("looks-at-everything", "changes-headers-after-the-start", "returns-nothing-in-it")
FIVE_HUNDRED = {
    "starts-newline",
    "starts-header-newline",
    "starts-number",
    "starts-header-length",
    *(name for name in DEEDS if name.startswith("raises-") and not name.endswith("-iterated")),
}


@pytest.fixture(scope="module", params=[1, 4], ids=["1 thread", "4 threads"])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[serving.Server]:
    directory: pathlib.Path = tmp_path_factory.mktemp("server")
    options = {
        "interface": "wsgi",
        "args": ["--threads", str(request.param), "--no-access-log"],
        "env": {"PYTHONWARNINGS": "ignore"},
    }
    with serving.running("hostile_wsgi:app", directory, **options) as server:
        server.allow(ANY_EXCEPTION)
        server.allow("Exception ignored in")
        yield server


def ask(server: serving.Server, target: str) -> Response | None:
    with Raw(server) as raw:
        raw.request(target, method="POST", body=b"some\nlines\nof text")
        try:
            return raw.read_response()
        except (ClosedError, ConnectionResetError):
            return None


def alive(server: serving.Server) -> bool:
    assert server.process.poll() is None, server.log
    response = ask(server, "/hello")
    return response is not None and (response.status, response.body) == (200, b"hello")


@pytest.mark.parametrize("name", DEEDS)
def test_deed(server: serving.Server, name: str) -> None:
    for _ in range(3):
        response = ask(server, f"/{name}")
        if name in GOOD or name in FIVE_HUNDRED:
            assert response is not None
            assert response.status == (200 if name in GOOD else 500)
        if response is not None:
            assert response.get("x-evil") is None
    assert alive(server)


def test_deeds_beside_each_other(server: serving.Server) -> None:
    names = list(DEEDS) * 2
    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        deeds = [pool.submit(ask, server, f"/{name}") for name in names]
        honest = [pool.submit(ask, server, "/hello") for _ in names]
        for future in honest:
            response = future.result()
            assert response is not None
            assert response.body == b"hello"
        for future in deeds:
            future.result()
    assert alive(server)
