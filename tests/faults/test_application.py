"""An application may do what it likes: the server lives, and other requests are served."""

from __future__ import annotations

import concurrent.futures
import pathlib
import sys
from collections.abc import Iterator

import pytest
import serving
from rawhttp import ClosedError, Raw, Response

sys.path.insert(0, str(serving.APPS))
from hostile import DEEDS

# What may be the last line of a traceback here. A crash, an assertion of ours or a report of a
# sanitizer is none of these.
ANY_EXCEPTION = r"^(\w+\.)*(\w*(Error|Exit|Cancelled|Group|Iteration|Disconnected))\b"

# A status, or None where the client only hears the end of the connection.
OUTCOMES: dict[str, object] = {
    "hello": 200,
    "changes-headers-after-the-start": 200,
    "sends-while-asked-for-more": 200,
    "sends-from-a-thread": 200,
    "receives-from-a-thread": 200,
    "changes-its-bytearray": 200,
    "keeps-everything": 200,
    "awaits-twice": 200,
    "never-awaits": 200,
    "ruins-its-scope": 200,
    "receives-by-hand": 200,
    "is-answered-by-a-collection": 200,
    "is-answered-as-it-begins-to-wait": 200,
    "receives-many-times-at-once": 200,
    "recurses": 500,
    "is-not-a-response": 500,
    "is-not-a-coroutine": 500,
    "is-nothing": 500,
    "is-a-generator": 500,
    "is-a-list": 500,
    "yields-a-number": 500,
    "yields-nothing": 200,
    "yields-a-future-by-hand": 500,
    "yields-a-future-of-another-loop": 500,
    "awaits-itself": 500,
    "drives-its-own-coroutine": 200,
    "drives-its-own-coroutine-and-waits": 200,
    "is-driven-before-it-runs": 200,
    "is-closed-while-cancelled": 500,
    "drives-those-that-wait-for-a-request": 200,
    "cancels-itself": 500,
    "cancels-itself-and-goes-on": 200,
    "cancels-its-own-kind": 200,
    "runs-a-loop-of-its-own": 200,
    "blocks": 200,
    "forks": 200,
    "leaves-a-task-behind": 200,
    "collects": 200,
    "looks-at-everything": 200,
    **{name: 500 for name in DEEDS if name.startswith("raises")},
    **{name: None for name in DEEDS if name.endswith("halfway")},
}


@pytest.fixture(
    scope="module",
    params=["asyncio-worker", "uvloop-worker", "asyncio-plain", "asyncio-eager"],
)
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[serving.Server]:
    loop, task = request.param.split("-")
    if task == "eager" and sys.version_info < (3, 12):
        pytest.skip("eager tasks need Python 3.12")
    directory: pathlib.Path = tmp_path_factory.mktemp("server")
    # Forking in a process with threads, and what an application never awaits, draw warnings.
    env = {"PYTHONWARNINGS": "ignore"}
    with serving.running("hostile:app", directory, loop=loop, task=task, env=env) as server:
        server.allow(ANY_EXCEPTION)
        server.allow("was never retrieved")
        server.allow("Exception ignored in")
        yield server


def ask(server: serving.Server, target: str) -> Response | None:
    with Raw(server) as raw:
        raw.request(target)
        try:
            return raw.read_response()
        except (ClosedError, ConnectionResetError):
            return None


def alive(server: serving.Server) -> bool:
    """This context, without having been replaced."""
    assert server.process.poll() is None, server.log
    response = ask(server, "/hello")
    return response is not None and (response.status, response.body) == (200, b"hello")


@pytest.mark.parametrize("name", [name for name in DEEDS if name != "fuzz"])
def test_deed(server: serving.Server, name: str) -> None:
    for _ in range(3):
        response = ask(server, f"/{name}")
        if name in OUTCOMES:
            assert (response.status if response is not None else None) == OUTCOMES[name]
    assert alive(server)


def test_bytearray_is_sent_as_it_was(server: serving.Server) -> None:
    response = ask(server, "/changes-its-bytearray")
    assert response is not None
    assert response.body == b"a" * 100_000 + b"b" * 100_000


def test_receive_is_told_of_an_end_while_it_begins_to_wait(server: serving.Server) -> None:
    ask(server, "/is-answered-as-it-begins-to-wait")
    server.wait_for_record("told of the end")
    assert "waits for nothing" not in server.records()


@pytest.mark.parametrize("kind", ["", "of-a-tuple-"])
def test_headers_are_sent_as_they_were(server: serving.Server, kind: str) -> None:
    response = ask(server, f"/empties-headers-{kind}after-the-start")
    assert response is not None
    assert response.status == 200
    assert set(response.all("x-a")) == {"b" * 1000}


def test_deeds_beside_each_other(server: serving.Server) -> None:
    """All of them at once, with honest requests in between that nobody disturbs."""
    names = [name for name in DEEDS if name not in ("fuzz", "cancels-its-own-kind")] * 2
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


def fuzz(server: serving.Server, seeds: range) -> None:
    for seed in seeds:
        # Strict reading: whatever chance sent, what comes out is well-formed or cut off.
        ask(server, f"/fuzz?{seed}")
    assert alive(server)


@pytest.mark.parametrize("block", range(4))
def test_garbage(server: serving.Server, block: int) -> None:
    fuzz(server, range(block * 100, block * 100 + 100))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_more_garbage(server: serving.Server, more: bool) -> None:
    if not more:
        pytest.skip("runs in make test-all")
    fuzz(server, range(1000, 9000))


def test_pipelined_garbage(server: serving.Server) -> None:
    """Answers stay in step: an honest request behind others gets its own answer or none."""
    for seed in range(60):
        with Raw(server) as raw:
            for number in range(3):
                raw.request(f"/fuzz?{20000 + seed * 3 + number}")
            raw.request("/hello")
            try:
                answers = [raw.read_response() for _ in range(4)]
            except (ClosedError, ConnectionResetError):
                continue
            assert answers[-1].body == b"hello"
    assert alive(server)
