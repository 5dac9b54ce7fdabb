"""The Task an application runs in: `tests/apps/battery` has the checks, one path each."""

from __future__ import annotations

import ast
import asyncio
import sys
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
import serving

BATTERY = serving.APPS / "battery"


def read_checks() -> dict[str, int]:
    """Names and step counts, without importing the application into the tests."""
    found: dict[str, int] = {}
    for path in sorted(BATTERY.glob("*.py")):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.AsyncFunctionDef) and any(
                isinstance(mark, ast.Name) and mark.id == "check" for mark in node.decorator_list
            ):
                name, _, _ = node.name.partition("__")
                found[name] = found.get(name, 0) + 1
    return found


CHECKS = read_checks()

VARIANTS = [
    pytest.param((loop, task, extra), id="-".join(filter(None, (loop, task, extra))))
    for loop in ("asyncio", "uvloop")
    for task in ("worker", "eager", "plain")
    for extra in ("", "debug", "collecting")
    if task == "worker" or not extra
    if task != "eager" or sys.version_info >= (3, 12)  # eager tasks came with Python 3.12
]


@pytest.fixture(scope="module", params=VARIANTS)
def server(request: pytest.FixtureRequest, serve: Callable[..., Any]) -> serving.Server:
    loop, task, extra = request.param
    env = {
        "": {},
        "debug": {"PYTHONASYNCIODEBUG": "1"},
        "collecting": {"BATTERY_COLLECTS": "1"},
    }[extra]
    return serve("battery:app", loop=loop, task=task, env=env, args=("--no-access-log",))


@pytest.fixture(scope="module")
def client(server: serving.Server) -> Iterator[httpx.Client]:
    limits = httpx.Limits(max_connections=1)
    with serving.client(server.url, limits=limits, timeout=serving.MUST_SECONDS) as client:
        yield client


def test_there_are_many_checks() -> None:
    assert len(CHECKS) > 50


@pytest.mark.parametrize("warm", [0, 3], ids=["cold", "warm"])
@pytest.mark.parametrize("name", CHECKS)
def test_check(client: httpx.Client, name: str, warm: int) -> None:
    failures = []
    for step in range(CHECKS[name]):
        # A task that serves its first request, and one that has served some without a trace.
        for _ in range(warm):
            assert client.get("/plain").text == "ok"
        answer = client.get(f"/check/{name}/{step}")
        if answer.status_code == 204:
            pytest.skip(answer.headers["x-note"])
        if answer.status_code != 200:
            failures.append(f"step {step + 1}: {answer.status_code}\n{answer.text}")
    # Whatever the check did, the next request on this connection must not see it.
    after = client.get("/pristine")
    if after.status_code != 200:
        failures.append(f"the request after it: {after.status_code}\n{after.text}")
    assert not failures, "\n".join(failures)


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_requests_without_a_trace_share_a_task(serve: Callable[..., Any], loop: str) -> None:
    """Or the worker would be of no use."""
    if serving.PEER != "ppserver":
        pytest.skip("of the worker Task alone")
    server = serve("battery:app", loop=loop, task="worker", env={}, args=("--no-access-log",))
    with serving.client(server.url, timeout=20) as client:
        client.get("/plain")
        assert len({client.get("/name").text for _ in range(100)}) == 1
        # One that has served a hundred is no less clean, nor is the next one.
        for step in range(2):
            answer = client.get(f"/check/attribute_does_not_reach_the_next_request/{step}")
            assert answer.status_code == 200, answer.text
        client.get("/plain")
        assert len({client.get("/name").text for _ in range(5)}) == 1


def test_concurrent_requests_have_tasks_of_their_own(server: serving.Server) -> None:
    async def main() -> list[httpx.Response]:
        async with serving.async_client(server.url) as client:
            return await asyncio.gather(*(client.get(f"/meet/many/16/{n}") for n in range(16)))

    assert [answer.text for answer in asyncio.run(main())] == ["ok"] * 16


TOUCHES = [
    "mark",
    "rename",
    "keep",
    "watch",
    "cancel",
    "set its variable",
    "cancel what it waits for",
    "wake",
    "close",
    "throw",
    "send",
]


@pytest.mark.parametrize("how", TOUCHES)
def test_request_that_touches_the_task_of_the_next(server: serving.Server, how: str) -> None:
    """One that waits for a request already, if the server has such."""

    async def main() -> None:
        async with serving.async_client(server.url) as client:
            waiting = asyncio.create_task(client.get(f"/touch-others/{how}"))
            while (await client.get("/is-there")).text != "True":
                pass
            assert (await client.get("/plain")).text == "ok"
            assert (await client.get("/go")).text == "ok"
            answer = await waiting
            assert answer.text == "ok"
            for path in ("/pristine", "/plain", "/sleep", "/pristine"):
                answer = await client.get(path)
                assert answer.status_code == 200, answer.text

    asyncio.run(main())


def test_queue_and_lock_between_requests(server: serving.Server) -> None:
    async def main() -> list[httpx.Response]:
        async with serving.async_client(server.url) as client:
            paths = ["/hand-over/get"] * 5 + ["/hand-over/put"] * 5
            return await asyncio.gather(*(client.get(path) for path in paths))

    answers = [answer.text for answer in asyncio.run(main())]
    assert answers == ["item"] * 5 + ["put"] * 5


def test_tasks_do_not_pile_up(client: httpx.Client) -> None:
    before = int(client.get("/tasks").text)
    for _ in range(100):
        client.get("/sleep")
    assert int(client.get("/tasks").text) <= before


def test_loop_reported_nothing(client: httpx.Client) -> None:
    assert client.get("/unexpected").json() == []
