"""Request bodies of any length, in any pieces, through the whole server."""

from __future__ import annotations

import json
import random
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import serving
from rawhttp import Raw

SIZES = (16383, 16384, 20_000, 65_536, 98_304, 131_073, 400_000, 3_000_000)


@pytest.fixture(scope="module")
def server(serve: Callable[..., Any], variant: dict[str, Any]) -> serving.Server:
    return serve("spec:app", interface="asgi", **variant)


@pytest.fixture
def raw(server: serving.Server) -> Iterator[Raw]:
    with Raw(server) as connection:
        yield connection


def request(path: str, body: bytes) -> bytes:
    return b"POST %s HTTP/1.1\r\nHost: test\r\nContent-Length: %d\r\n\r\n%s" % (
        path.encode(),
        len(body),
        body,
    )


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("most", [1_000, 70_000, 10_000_000])
def test_a_body_in_pieces_and_a_request_behind_it(raw: Raw, size: int, most: int) -> None:
    dice = random.Random(size + most)
    body = dice.randbytes(size)
    data = request("/echo", body) + b"GET /scope HTTP/1.1\r\nHost: test\r\n\r\n"
    raw.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    while data:
        piece = dice.randint(1, most)
        raw.send(data[:piece])
        data = data[piece:]
    assert raw.read_response().body == body
    assert raw.read_response().status == 200


def test_pieces_have_a_limit(raw: Raw) -> None:
    messages = json.loads(raw.ask("/messages", method="POST", body=bytes(1_000_000)).body)
    sizes = [message["body"] for message in messages]
    assert sum(sizes) == 1_000_000
    assert max(sizes) <= 16384 + 98304
    assert [message["more_body"] for message in messages] == [True] * (len(sizes) - 1) + [False]


def test_continue_for_a_long_body(raw: Raw) -> None:
    raw.request("/echo", "Expect: 100-continue", "Content-Length: 200000", method="POST")
    assert raw.read_response().status == 100
    raw.send(bytes(200_000))
    assert raw.read_response().body == bytes(200_000)
    assert raw.ask("/scope").status == 200
