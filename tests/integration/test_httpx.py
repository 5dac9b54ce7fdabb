"""httpx as the client, sync and async: reuse, streams, large bodies, many clients."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import httpx
import pytest
import serving
from rawhttp import Raw

BLOCK = bytes(range(256)) * 1024
GIGABYTE = 1 << 30
# What a server may take more while a gigabyte passes through it. Everything it buffers on
# purpose is far below this; one copy of a body is far above.
MEMORY_BOUND = 24 << 20
if os.environ.get("TEST_SANITIZER"):
    MEMORY_BOUND += 300 << 20  # it keeps what was freed for a while


@pytest.fixture(scope="module")
def server(serve: Callable[..., Any], variant: dict[str, Any]) -> serving.Server:
    return serve("bulk:app", args=("--no-access-log",), **variant)


@pytest.fixture
def client(server: serving.Server) -> Iterator[httpx.Client]:
    with serving.client(server.url) as client:
        yield client


def test_connection_is_reused(client: httpx.Client) -> None:
    assert len({client.get("/").json()["client"] for _ in range(20)}) == 1


def test_connection_is_reused_after_every_kind_of_response(client: httpx.Client) -> None:
    ports = set()
    for _ in range(3):
        ports.add(client.get("/").json()["client"])
        client.get("/download?1")
        client.get("/download/chunked?2")
        client.head("/download?1")
        client.post("/upload", content=b"x" * 1000)
        client.post("/echo", content=iter([b"a", b"b"]))
    ports.add(client.get("/").json()["client"])
    assert len(ports) == 1


def test_connection_is_not_reused_when_asked(client: httpx.Client) -> None:
    ports = {client.get("/", headers={"connection": "close"}).json()["client"] for _ in range(3)}
    assert len(ports) == 3


def test_async_client_reuses_connections(server: serving.Server) -> None:
    async def main() -> set[int]:
        limits = httpx.Limits(max_connections=2)
        async with serving.async_client(
            server.url, limits=limits, timeout=serving.MUST_SECONDS
        ) as client:
            answers = await asyncio.gather(*(client.get("/") for _ in range(30)))
        return {answer.json()["client"] for answer in answers}

    assert len(asyncio.run(main())) <= 2


@pytest.mark.parametrize("path", ["/download", "/download/chunked"])
def test_stream_down(client: httpx.Client, path: str) -> None:
    digest = hashlib.sha256()
    with client.stream("GET", f"{path}?64") as answer:
        for part in answer.iter_raw():
            digest.update(part)
    assert digest.hexdigest() == hashlib.sha256(BLOCK * 64).hexdigest()


@pytest.mark.parametrize("chunked", [False, True])
def test_stream_up(client: httpx.Client, chunked: bool) -> None:
    def parts() -> Iterator[bytes]:
        for number in range(64):
            yield BLOCK[number:]

    whole = b"".join(parts())
    headers = {} if chunked else {"content-length": str(len(whole))}
    answer = client.post("/upload?digest", content=parts(), headers=headers).json()
    assert answer["total"] == len(whole)
    assert answer["sha256"] == hashlib.sha256(whole).hexdigest()


def test_stream_both_ways(server: serving.Server) -> None:
    async def parts() -> AsyncIterator[bytes]:
        for number in range(200):
            yield b"%d," % number
            await asyncio.sleep(0)

    async def main() -> bytes:
        async with (
            serving.async_client(server.url) as client,
            client.stream("POST", "/echo", content=parts()) as answer,
        ):
            return b"".join([part async for part in answer.aiter_raw()])

    assert asyncio.run(main()) == b"".join(b"%d," % number for number in range(200))


def test_abandoned_streams_harm_nobody(client: httpx.Client) -> None:
    for _ in range(10):
        with client.stream("GET", "/download?400") as answer:
            next(answer.iter_raw(1000))
    assert client.get("/").status_code == 200


@pytest.mark.parametrize("count", [200])
def test_concurrent_clients(server: serving.Server, count: int) -> None:
    """So many clients, each with a connection of its own, all there at the same time."""

    gate = asyncio.Barrier(count)

    async def one(number: int) -> Any:
        async with serving.async_client(server.url) as client:
            async with client.stream("GET", f"/{number}") as answer:
                await gate.wait()
                data = await answer.aread()
            assert answer.status_code == 200
            posted = await client.post("/upload?digest", content=b"%d" % number * 5000)
            assert posted.json()["sha256"] == hashlib.sha256(b"%d" % number * 5000).hexdigest()
        return json.loads(data)

    async def main() -> list[Any]:
        return await asyncio.gather(*(one(number) for number in range(count)))

    answers = asyncio.run(main())
    assert [answer["path"] for answer in answers] == [f"/{number}" for number in range(count)]
    assert len({answer["client"] for answer in answers}) == count


def test_concurrent_threads(server: serving.Server) -> None:
    failures: list[BaseException] = []

    def one(number: int) -> None:
        try:
            with serving.client(server.url) as client:
                for _ in range(10):
                    assert client.get(f"/{number}").json()["path"] == f"/{number}"
                assert client.post("/upload", content=BLOCK).json()["total"] == len(BLOCK)
        except BaseException as exc:
            failures.append(exc)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_many_and_large_headers(client: httpx.Client) -> None:
    headers = {f"x-header-{number}": "v" * 250 for number in range(80)}
    answer = client.get("/", headers=headers).json()
    assert answer["headers"] >= 80
    assert answer["bytes"] >= 80 * 250
    answer = client.get("/", headers={"cookie": "c" * 8000}).json()
    assert answer["bytes"] >= 8000


@pytest.mark.peer_differs("its limit is elsewhere")
def test_headers_above_the_limit(client: httpx.Client, server: serving.Server) -> None:
    answer = client.get("/", headers={"x-large": "v" * 40_000})
    assert answer.status_code == 431
    answer = serving.get(server.url, headers={f"x-{number}": "" for number in range(200)})
    assert answer.status_code == 431
    assert client.get("/").status_code == 200


def test_pipelining(server: serving.Server) -> None:
    with Raw(server) as raw:
        for _ in range(5):
            raw.send(
                b"".join(b"GET /%d HTTP/1.1\r\nHost: test\r\n\r\n" % number for number in range(40))
            )
            for number in range(40):
                answer = raw.read_response()
                assert answer.status == 200
                assert b'"/%d"' % number in answer.body


# --- a gigabyte -----------------------------------------------------------------------------------


@contextlib.contextmanager
def memory_stays_flat(server: serving.Server) -> Iterator[Callable[[], None]]:
    """Yields a function to call on the way; the memory of all processes stays within bounds."""
    highest = before = server.memory_bytes()

    def look() -> None:
        nonlocal highest
        highest = max(highest, server.memory_bytes())

    yield look
    look()
    assert highest - before < MEMORY_BOUND, f"grew by {(highest - before) >> 20} MB"


@pytest.fixture(scope="module")
def one_context(serve: Callable[..., Any], loop: str) -> serving.Server:
    server = serve("bulk:app", loop=loop, contexts=1, args=("--no-access-log",))
    with serving.client(server.url) as client:
        client.get("/download?40")  # what is allocated once is not growth
        client.post("/upload", content=BLOCK * 40)
    return server


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.parametrize("path", ["/download", "/download/chunked"])
def test_gigabyte_down(one_context: serving.Server, path: str) -> None:
    total = 0
    with (
        memory_stays_flat(one_context) as look,
        httpx.stream(
            "GET", f"{one_context.url}{path}?{GIGABYTE // len(BLOCK)}", timeout=60
        ) as answer,
    ):
        for number, part in enumerate(answer.iter_raw()):
            total += len(part)
            if number % 1000 == 0:
                look()
    assert total == GIGABYTE


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.parametrize("chunked", [False, True])
def test_gigabyte_up(one_context: serving.Server, chunked: bool) -> None:
    with memory_stays_flat(one_context) as look:

        def parts() -> Iterator[bytes]:
            for number in range(GIGABYTE // len(BLOCK)):
                if number % 200 == 0:
                    look()
                yield BLOCK

        headers = {} if chunked else {"content-length": str(GIGABYTE)}
        url = f"{one_context.url}/upload"
        answer = httpx.post(url, content=parts(), headers=headers, timeout=60).json()
    assert answer["total"] == GIGABYTE
    assert answer["largest"] <= 1 << 20, "the application got the body in one piece"


@pytest.mark.slow
def test_slow_reader_costs_no_memory(one_context: serving.Server) -> None:
    """The application offers a gigabyte to clients that do not read."""
    with memory_stays_flat(one_context) as look, contextlib.ExitStack() as stack:
        for _ in range(10):
            raw = stack.enter_context(Raw(one_context))
            raw.request(f"/download?{GIGABYTE // len(BLOCK)}")
            raw.read_head()
        for _ in range(20):
            serving.get(one_context.url)
            look()


def test_body_that_is_not_taken_is_not_read(one_context: serving.Server) -> None:
    """Reading stops when the application does not take the body; the client has to wait."""
    with Raw(one_context, timeout=0.3) as raw, memory_stays_flat(one_context):
        raw.request("/hold-upload?1.5", f"Content-Length: {256 << 20}", method="POST")
        sent = 0
        with contextlib.suppress(TimeoutError):
            while sent < 256 << 20:
                sent += raw.socket.send(BLOCK)
        assert sent < 32 << 20, "the server takes what nobody asked for"
        raw.socket.settimeout(serving.MUST_SECONDS)
        while sent < 256 << 20:
            sent += raw.socket.send(BLOCK[: (256 << 20) - sent])
        assert raw.read_response().body == str(256 << 20).encode()
