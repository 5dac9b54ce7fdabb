"""asyncio is whole under the server; `tests/apps/whole.py` is the application."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import pytest
import serving


@pytest.fixture(scope="module")
def server(serve: Callable[..., Any], variant: dict[str, Any]) -> serving.Server:
    serving.require("httpx")
    return serve("whole:app", **variant)


@pytest.fixture(scope="module")
def server_with_database(
    serve: Callable[..., Any], variant: dict[str, Any], postgres: str
) -> serving.Server:
    serving.require("asyncpg", "psycopg")
    return serve("whole:app", env={"TEST_POSTGRES": postgres}, **variant)


EXPECTED = {
    "httpx-client": [0, 1, 2, 3, 4],
    "httpx-stream": 200_000,
    "subprocess-exec": ["SOME TEXT", 3],
    "subprocess-shell": ["out\n", "err\n", 4],
    "subprocess-lines": [[f"line {number}\n" for number in range(5)], 0],
    "subprocess-killed": -15,
    "subprocess-many": list(range(8)),
    "process-pool": 81,
    "to-thread": [20, False],
    "sleep": 0,
    "timers": [51, False, True],
    "own-signal": "heard",
    "ticking": True,
    "own-server": [f"CLIENT {number}\n" for number in range(5)],
    "unix-server": 500_000,
    "datagrams": "datagram",
    "readers-and-writers": "watched",
    "socket-calls": 1_000_000,
    "pipes": "through a pipe",
    "names": True,
    "many-sockets": 200,
}


@pytest.mark.parametrize("name", EXPECTED)
def test_works(server: serving.Server, variant: dict[str, Any], name: str) -> None:
    if name == "own-signal" and variant["place"] in ("threads", "interpreters"):
        pytest.skip("only a process's main thread may handle signals, and it runs no application")
    answer = serving.get(f"{server.url}/{name}", timeout=serving.MUST_SECONDS)
    assert answer.status_code == 200
    assert answer.json() == EXPECTED[name]


def test_everything_at_once(server: serving.Server) -> None:
    names = [name for name in EXPECTED if name not in ("process-pool", "own-signal")] * 3

    async def main() -> list[Any]:
        limits = httpx.Limits(max_connections=None)
        async with serving.async_client(server.url, limits=limits) as client:
            answers = await asyncio.gather(*(client.get(f"/{name}") for name in names))
        return [answer.json() for answer in answers]

    assert asyncio.run(main()) == [EXPECTED[name] for name in names]


def test_asyncpg(server_with_database: serving.Server) -> None:
    with serving.client(server_with_database.url) as client:
        assert client.get("/asyncpg-pool?21").json() == [42, [1, 2, 3, 4, 5]]
        assert client.get("/asyncpg-connection").json().startswith("PostgreSQL")
        assert client.get("/asyncpg-cancel").json() == "alive"
        assert client.get("/asyncpg-notify?1").json() == "a payload"
        assert client.get("/asyncpg-pool?4").json()[0] == 8


def test_psycopg(server_with_database: serving.Server) -> None:
    with serving.client(server_with_database.url) as client:
        assert client.get("/psycopg-connection?21").json() == [22, 1000]
        assert client.get("/psycopg-in-a-thread").json() == 7
        assert client.get("/psycopg-pipeline").json() == [0, 1, 2, 3, 4]


def test_databases_under_load(server_with_database: serving.Server) -> None:
    async def main() -> None:
        url = server_with_database.url
        async with serving.async_client(url) as client:
            pools = [client.get(f"/asyncpg-pool?{number}") for number in range(40)]
            single = [client.get(f"/psycopg-connection?{number}") for number in range(10)]
            answers = await asyncio.gather(*pools, *single)
        values = [answer.json()[0] for answer in answers]
        assert values[:40] == [number * 2 for number in range(40)]
        assert values[40:] == [number + 1 for number in range(10)]

    asyncio.run(main())
