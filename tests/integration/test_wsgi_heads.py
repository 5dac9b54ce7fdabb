"""WSGI: when the head of a response leaves whose first piece does not come.

The application's pause ends only once the client has the head: a server that waits for the first
piece hangs these tests.
"""

from __future__ import annotations

import http.client
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import flask
import pytest
import serving

live = serving.load_app("wsgi_live")
Context, request = live.Context, live.request

Start = Callable[..., Any]
Environ = dict[str, Any]


class Pausing:
    """Applications whose result pauses before its first piece until `go`."""

    def __init__(self, *headers: tuple[str, str], status: str = "200 OK") -> None:
        self.go = threading.Event()
        self.status, self.headers = status, list(headers)

    def pause(self) -> None:
        assert self.go.wait(live.SECONDS), "the head did not arrive"

    def generator(self, environ: Environ, start_response: Start) -> Iterator[bytes]:
        start_response(self.status, self.headers)
        self.pause()
        yield b"first"
        yield b"second"

    def iterator(self, environ: Environ, start_response: Start) -> Iterator[bytes]:
        start_response(self.status, self.headers)
        return iter(self._pieces())

    def empty_first(self, environ: Environ, start_response: Start) -> Iterator[bytes]:
        yield b""
        start_response(self.status, self.headers)
        yield b""
        self.pause()
        yield b""
        yield b"firstsecond"

    def nothing(self, environ: Environ, start_response: Start) -> Iterator[bytes]:
        start_response(self.status, self.headers)
        self.pause()
        yield from ()

    def _pieces(self) -> Iterator[bytes]:
        self.pause()
        yield b"first"
        yield b"second"


@pytest.mark.parametrize(
    ("kind", "threads"), [("generator", 1), ("iterator", 4), ("empty_first", 1)]
)
def test_a_head_does_not_wait_for_a_pause(kind: str, threads: int) -> None:
    paused = Pausing(("Content-Type", "text/event-stream"))
    with Context(getattr(paused, kind), threads=threads) as context, context.connect() as client:
        client.send(request())
        response = client.head()
        assert response.status == 200
        assert response.headers["content-type"] == "text/event-stream"
        assert response.headers["transfer-encoding"] == "chunked"
        paused.go.set()
        assert response.read() == b"firstsecond"
        assert client.ask().body == b"firstsecond"  # the connection goes on


def test_frames_of_a_head_that_did_not_wait() -> None:
    """Content-Length, HTTP/1.0, HEAD, and answers without a body are framed as otherwise."""
    for raw, method, headers, status, body in (
        (request(), "GET", [("Content-Length", "11")], "200 OK", b"firstsecond"),
        (request(version="1.0"), "GET", [], "200 OK", b"firstsecond"),
        (request(method="HEAD"), "HEAD", [], "200 OK", b""),
        (request(), "GET", [], "204 No Content", b""),
        (request(), "GET", [], "304 Not Modified", b""),
    ):
        paused = Pausing(*headers, status=status)
        app = paused.generator if status == "200 OK" else paused.nothing
        with Context(app, threads=2) as context, context.connect() as client:
            client.send(raw)
            response = client.head(method)
            assert f"{response.status} {response.reason}" == status
            assert response.headers["content-length"] == (headers[0][1] if headers else None)
            paused.go.set()
            assert response.read() == body
            if b"HTTP/1.0" in raw:
                assert client.at_end()
            else:
                assert client.ask().body == (body or (b"firstsecond" if method == "HEAD" else b""))


def test_longer_than_its_content_length() -> None:
    paused = Pausing(("Content-Length", "7"))
    with Context(paused.generator, expect_errors=True) as context, context.connect() as client:
        client.send(request())
        response = client.head()
        paused.go.set()
        assert response.read() == b"firstse"
    assert isinstance(context.error(), ValueError)


def test_an_error_after_the_head_breaks_the_response_off() -> None:
    paused = Pausing()

    def app(environ: Environ, start_response: Start) -> Iterator[bytes]:
        start_response("200 OK", [])
        paused.pause()
        raise LookupError
        yield b"never"

    with Context(app) as context:
        with context.connect() as client:
            client.send(request())
            response = client.head()
            assert response.status == 200
            paused.go.set()
            with pytest.raises(http.client.IncompleteRead):
                response.read()
            assert client.at_end()
        assert isinstance(context.error(), LookupError)
        # The pause is over before the head has waited for long: a real 500.
        assert context.get().status == 500
        assert isinstance(context.error(), LookupError)


def test_exc_info_after_the_head_and_before() -> None:
    paused = Pausing()

    def app(environ: Environ, start_response: Start) -> Iterator[bytes]:
        start_response("200 OK", [])
        paused.pause()
        try:
            raise LookupError
        except LookupError:
            start_response("503 Service Unavailable", [], sys.exc_info())
        yield b"sorry"

    with Context(app) as context:
        with context.connect() as client:
            client.send(request())
            response = client.head()
            paused.go.set()
            with pytest.raises(http.client.IncompleteRead):
                response.read()
        assert isinstance(context.error(), LookupError)
        answer = context.get()
        assert (answer.status, answer.body) == (503, b"sorry")


def test_a_head_that_was_replaced_leaves_as_well() -> None:
    paused = Pausing()

    def app(environ: Environ, start_response: Start) -> Iterator[bytes]:
        start_response("200 OK", [("Content-Length", "1")])
        try:
            raise LookupError
        except LookupError:
            start_response("503 Service Unavailable", [("X-Why", "because")], sys.exc_info())
        paused.pause()
        yield b"sorry"

    with Context(app) as context, context.connect() as client:
        client.send(request())
        response = client.head()
        assert (response.status, response.headers["x-why"]) == (503, "because")
        paused.go.set()
        assert response.read() == b"sorry"


def test_an_application_that_has_not_returned_keeps_its_head() -> None:
    """It may still fail, or return a list; two heads of others leave meanwhile."""
    held, paused = Pausing(), [Pausing(), Pausing()]

    def app(environ: Environ, start_response: Start) -> Any:
        if environ["PATH_INFO"] == "/held":
            start_response("200 OK", [])
            held.pause()
            raise LookupError
        return paused[int(environ["PATH_INFO"][1:])].generator(environ, start_response)

    with Context(app) as context, context.connect() as client, context.connect() as other:
        client.send(request("/held"))
        for i in range(2):
            other.send(request(f"/{i}"))
            response = other.head()
            paused[i].go.set()
            assert response.read() == b"firstsecond"
        held.go.set()
        assert client.answer().status == 500
        assert isinstance(context.error(), LookupError)


def test_a_stream_of_flask() -> None:
    paused = Pausing()
    app = flask.Flask(__name__)

    @app.get("/events")
    def events() -> flask.Response:
        def pieces() -> Iterator[str]:
            paused.pause()
            yield "data: 1\n\n"

        return flask.Response(flask.stream_with_context(pieces()), mimetype="text/event-stream")

    with Context(app) as context, context.connect() as client:
        client.send(request("/events"))
        response = client.head()
        assert response.headers["content-type"].startswith("text/event-stream")
        paused.go.set()
        assert response.read() == b"data: 1\n\n"


def test_a_client_that_leaves_during_the_pause() -> None:
    paused = Pausing()
    closed = threading.Event()

    class Result:
        def __iter__(self) -> Iterator[bytes]:
            paused.pause()
            yield b"x"

        def close(self) -> None:
            closed.set()

    def app(environ: Environ, start_response: Start) -> Result:
        start_response("200 OK", [])
        return Result()

    with Context(app) as context:
        for how in ("before", "after"):
            paused.go.clear()
            closed.clear()
            client = context.connect()
            client.send(request())
            if how == "after":
                client.head()
            client.reset()
            serving.wait_until(lambda: context.core.connections == 0, what="noticed")
            paused.go.set()
            assert closed.wait(live.SECONDS)


@pytest.mark.wide
def test_pauses_that_end_as_the_head_leaves() -> None:
    """The application's thread and the leader meet at the head, at all moments."""
    seed = random.randrange(2**32)
    print("seed", seed)
    draw = random.Random(seed)

    def app(environ: Environ, start_response: Start) -> Iterator[bytes]:
        _, kind, ms, _ = environ["PATH_INFO"].split("/")
        start_response("200 OK", [("X-Kind", kind)] * 3)
        time.sleep(int(ms) / 1000)
        if kind == "replace":
            try:
                raise LookupError
            except LookupError as error:
                try:
                    start_response("503 Sorry", [("X-Kind", "new")] * 5, sys.exc_info())
                except LookupError as raised:
                    assert raised is error
                    yield b"late"
                    return
        if kind == "fail":
            raise LookupError
        yield kind.encode()
        yield b"!"

    def client_of(context: Any, number: int) -> None:
        with context.connect() as client:
            for _ in range(12):
                kind = draw.choice(["replace", "plain", "fail"])
                client.send(request(f"/{kind}/{draw.randrange(240, 520)}/x"))
                response = client.head()
                seen.append((kind, response.status))
                if kind == "fail":
                    if response.status == 200:
                        with pytest.raises(http.client.IncompleteRead):
                            response.read()
                    return
                body = response.read()
                if kind == "replace":
                    late = response.status == 200
                    assert body == (b"late" if late else b"replace!")
                    assert response.headers.get_all("x-kind") == (
                        ["replace"] * 3 if late else ["new"] * 5
                    )
                elif kind == "plain":
                    assert (response.status, body) == (200, b"plain!")

    seen: list[tuple[str, int]] = []
    failures: list[BaseException] = []

    def run(context: Any, number: int) -> None:
        try:
            client_of(context, number)
        except BaseException as error:
            failures.append(error)

    with Context(app, threads=64, expect_errors=True) as context:
        threads = [threading.Thread(target=run, args=(context, i)) for i in range(64)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert failures == []
    assert {type(error) for error, _ in context.errors} <= {LookupError}
    assert len(seen) > 64
