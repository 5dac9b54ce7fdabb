"""The wire cases once more, through sockets, loop, bridge and an application that tells all.

Each is sent whole and in two halves; mutants of good requests are cut at random. What the machine
alone makes of them is in the unit tests; here every request it accepts must reach the application
as it is, and every error must become its status and the end of the connection.
"""

from __future__ import annotations

import contextlib
import json
import random
import socket
from collections.abc import Callable

import h1dump
import pytest
import serving
from rawhttp import ClosedError, Raw

SEED = 20240607
MUTANTS = 1000
# Cases with other limits than the server's are left to the unit tests.
CASES = [case for case in h1dump.read_cases() if case.limits is None]


@pytest.fixture(scope="module")
def server(serve: Callable[..., serving.Server], loop: str) -> serving.Server:
    return serve("wire_cases:app", loop=loop, args=["--no-access-log"])


def without_host(fields: list[list[str]]) -> list[list[str]]:
    return [field for field in fields if field[0] != "host"]


def check(raw: Raw, events: str) -> None:
    requests, error = h1dump.wanted(events)
    for request in requests:
        if request["method"] == "CONNECT":
            assert raw.read_response().status == 501
            assert raw.read_to_end() == b""
            return
        response = raw.read_response()
        while response.status == 100:
            response = raw.read_response()
        assert response.status == 200
        seen = json.loads(response.body)
        authority = request.pop("authority")
        if authority is not None:  # it replaces Host
            assert [v for n, v in seen["fields"] if n == "host"] == [authority]
            seen["fields"] = without_host(seen["fields"])
            request["fields"] = without_host(request["fields"])
        assert seen == request
    if error is not None:
        response = raw.read_response()
        while response.status == 100:
            response = raw.read_response()
        assert response.status == error
        assert response.get("connection") == "close"
    # Bytes behind the last request may meet a closed socket: a reset then is the end, too.
    with contextlib.suppress(ConnectionResetError):
        assert raw.read_to_end() == b""


def send(server: serving.Server, data: bytes, cut: int, events: str) -> None:
    with Raw(server) as raw:
        raw.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            raw.send(data[:cut])
            raw.send(data[cut:])
            raw.socket.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # the server was quicker
        try:
            check(raw, events)
        except ClosedError as closed:
            pytest.fail(f"{data!r} cut at {cut}: {closed}")


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.file}: {case.title}")
def test_case(server: serving.Server, case: h1dump.Case) -> None:
    assert case.events is not None
    for cut in {len(case.data), len(case.data) // 2}:
        send(server, case.data, cut, case.events)


@pytest.mark.slow
def test_mutants(server: serving.Server) -> None:
    generator = random.Random(SEED)
    print(f"seed {SEED}")
    inputs = [h1dump.mutant(generator) for _ in range(MUTANTS)]
    for data, log in zip(inputs, h1dump.dump(inputs), strict=True):
        send(server, data, generator.randrange(len(data) + 1), log)
