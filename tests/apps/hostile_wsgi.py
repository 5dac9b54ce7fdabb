"""A WSGI application that does to its server what nobody should do. The path names the deed."""

from __future__ import annotations

import contextlib
import gc
import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from support import ExpectedError

Environ = dict[str, Any]
Deed = Callable[[Environ, Any], Any]

DEEDS: dict[str, Deed] = {}
kept: list[Any] = []


def deed(function: Deed) -> Deed:
    DEEDS[function.__name__.replace("_", "-")] = function
    return function


def app(environ: Environ, start_response: Any) -> Any:
    return DEEDS[environ["PATH_INFO"].strip("/")](environ, start_response)


@deed
def hello(environ: Environ, start_response: Any) -> Iterable[bytes]:
    start_response("200 OK", [])
    return [b"hello"]


class Body:
    """An iterable with everything a server may look at."""

    def __init__(self, **actions: Callable[[], Any]) -> None:
        self.actions = actions

    def act(self, name: str, default: Any) -> Any:
        return self.actions[name]() if name in self.actions else default

    def __len__(self) -> int:
        return self.act("len", 1)

    def __iter__(self) -> Iterator[Any]:
        return self.act("iter", self)

    def __next__(self) -> Any:
        if "next" in self.actions:
            return self.actions["next"]()
        raise StopIteration

    def close(self) -> None:
        self.act("close", None)


def fails() -> Any:
    raise ExpectedError


@deed
def close_fails(environ: Environ, start_response: Any) -> Any:
    start_response("200 OK", [])
    return Body(close=fails)


@deed
def iter_fails(environ: Environ, start_response: Any) -> Any:
    start_response("200 OK", [])
    return Body(iter=fails)


@deed
def next_fails(environ: Environ, start_response: Any) -> Any:
    start_response("200 OK", [])
    return Body(next=fails)


@deed
def len_fails(environ: Environ, start_response: Any) -> Any:
    start_response("200 OK", [])
    return Body(len=fails)


@deed
def len_lies(environ: Environ, start_response: Any) -> Any:
    start_response("200 OK", [])
    body = [b"a", b"b", b"c"]
    return type("Lies", (list,), {"__len__": lambda self: 1})(body)


@deed
def len_is_negative(environ: Environ, start_response: Any) -> Any:
    start_response("200 OK", [])
    return type("Lies", (list,), {"__len__": lambda self: -1})([b"a"])


@deed
def body_changes_while_sent(environ: Environ, start_response: Any) -> Any:
    start_response("200 OK", [])
    body: list[Any] = []

    class Part(bytes):
        def __len__(self) -> int:
            body.clear()
            gc.collect()
            return 5

    body.extend([Part(b"x" * 100_000), b"y" * 100_000, Part(b"z")])
    return body


@deed
def writes_while_iterated(environ: Environ, start_response: Any) -> Any:
    write = start_response("200 OK", [])

    def parts() -> Iterator[bytes]:
        yield b"one"
        write(b"two")
        yield b"three"

    return parts()


@deed
def writes_when_closed(environ: Environ, start_response: Any) -> Any:
    write = start_response("200 OK", [])
    return Body(close=lambda: write(b"too late"))


@deed
def starts_when_closed(environ: Environ, start_response: Any) -> Any:
    start_response("200 OK", [])
    return Body(close=lambda: start_response("500 No", []))


@deed
def starts_again_while_headers_are_read(environ: Environ, start_response: Any) -> Any:
    class Headers(list):  # type: ignore[type-arg]
        def __iter__(self) -> Iterator[Any]:
            with contextlib.suppress(Exception):
                start_response("200 Inner", [])
            return super().__iter__()

        def __len__(self) -> int:
            with contextlib.suppress(Exception):
                start_response("200 Inner", [])
            return super().__len__()

    start_response("200 OK", Headers([("X-A", "b")]))
    return [b"hello"]


@deed
def changes_headers_after_the_start(environ: Environ, start_response: Any) -> Any:
    headers: list[Any] = [(f"X-{n}", "y" * 100) for n in range(60)]
    start_response("200 OK", headers)
    headers[:] = [("bad name", None), 5]
    gc.collect()
    return [b"hello"]


class Shown:
    def __init__(self, run: Callable[[], object]) -> None:
        self.run = run

    def __repr__(self) -> str:
        self.run()
        return "shown"

    __str__ = __repr__


@deed
def changes_headers_while_shown(environ: Environ, start_response: Any) -> Any:
    headers: list[Any] = [("X-A", "b")]
    headers.append((Shown(headers.clear), "x"))
    headers.append([Shown(headers.clear), Shown(gc.collect), "x"])
    for _ in range(2):
        with contextlib.suppress(TypeError):
            start_response("200 OK", headers)
        headers.reverse()
    return [b"hello"]


@deed
def starts_from_a_thread(environ: Environ, start_response: Any) -> Any:
    outcome: list[Any] = []

    def run() -> None:
        try:
            write = start_response("200 OK", [])
            write(b"from a thread")
            environ["wsgi.input"].read(1)
        except Exception as error:
            outcome.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return []


@deed
def uses_it_all_later(environ: Environ, start_response: Any) -> Any:
    """What belongs to requests long gone."""
    for old_environ, old_start, old_write in kept[-5:]:
        with contextlib.suppress(Exception):
            old_environ["wsgi.input"].read()
        with contextlib.suppress(Exception):
            old_start("200 OK", [])
        with contextlib.suppress(Exception):
            old_write(b"late")
    kept.append((environ, start_response, start_response("200 OK", [])))
    return [b"hello"]


@deed
def uses_it_from_a_thread_later(environ: Environ, start_response: Any) -> Any:
    write = start_response("200 OK", [])

    def run() -> None:
        for _ in range(50):
            with contextlib.suppress(Exception):
                write(b"late")
            with contextlib.suppress(Exception):
                environ["wsgi.input"].read()

    threading.Thread(target=run, daemon=True).start()
    return [b"hello"]


def ends(name: str, make: Callable[[], BaseException]) -> None:
    def called(environ: Environ, start_response: Any) -> Any:
        raise make()

    def iterated(environ: Environ, start_response: Any) -> Any:
        start_response("200 OK", [])
        yield b"half"
        raise make()

    DEEDS[f"raises-{name}"] = called
    DEEDS[f"raises-{name}-iterated"] = iterated


class NoError(BaseException):
    pass


ends("exception", ExpectedError)
ends("base", lambda: NoError("expected by the test"))
ends("memory", MemoryError)
ends("recursion", RecursionError)
ends("generator-exit", GeneratorExit)
ends("exit", lambda: SystemExit(3))

for _name, _value in {
    "nothing": None,
    "a-number": 42,
    "a-string": "text",
    "bytes": b"bytes",
    "strings": ["text"],
    "numbers": [1, 2],
    "nested": [[b"x"]],
    "a-dict": {b"x": 1},
    "memoryviews": [memoryview(b"0123456789")[::2], memoryview(b"x")],
    "bytearrays": [bytearray(b"x" * 100_000)],
    "nothing-in-it": [],
    "empty-parts": [b"", b"", b"x", b""],
}.items():

    def _returns(environ: Environ, start_response: Any, value: Any = _value) -> Any:
        start_response("200 OK", [])
        return value

    DEEDS[f"returns-{_name}"] = _returns

for _name, _status, _headers in [
    ("bytes", b"200 OK", []),
    ("number", 200, []),
    ("short", "20", []),
    ("no-number", "abc", []),
    ("newline", "200 OK\r\nX-Evil: 1", []),
    ("surrogate", "200 \ud800", []),
    ("wide", "200 \u2603", []),
    ("huge", "99999999999999999999 X", []),
    ("negative", "-200 OK", []),
    ("headers-none", "200 OK", None),
    ("headers-number", "200 OK", 5),
    ("header-newline", "200 OK", [("X-A", "b\r\nX-Evil: 1")]),
    ("header-bytes", "200 OK", [(b"X-A", b"b")]),
    ("header-surrogate", "200 OK", [("X-A", "\ud800")]),
    ("header-wide", "200 OK", [("X-A", "\u2603")]),
    ("header-single", "200 OK", [("X-A",)]),
    ("header-length", "200 OK", [("Content-Length", "-5")]),
    ("header-hop", "200 OK", [("Connection", "close"), ("Transfer-Encoding", "gzip")]),
]:

    def _starts(
        environ: Environ, start_response: Any, status: Any = _status, headers: Any = _headers
    ) -> Any:
        start_response(status, headers)
        return [b"hello"]

    DEEDS[f"starts-{_name}"] = _starts


@deed
def reads_oddly(environ: Environ, start_response: Any) -> Any:
    stream = environ["wsgi.input"]
    for arguments in ((-1,), (None,), (0,), (2**62,), (-(2**62),), ("x",), (1.5,), (1, 2)):
        for name in ("read", "readline", "readlines"):
            with contextlib.suppress(TypeError, ValueError, OverflowError):
                getattr(stream, name)(*arguments)
    list(stream)
    return hello(environ, start_response)


@deed
def ruins_its_environ(environ: Environ, start_response: Any) -> Any:
    environ["wsgi.errors"].write("expected by the test\n")
    environ.clear()
    gc.collect()
    return hello({}, start_response)


@deed
def wraps_odd_files(environ: Environ, start_response: Any) -> Any:
    wrapper = environ["wsgi.file_wrapper"]
    for arguments in ((), (None,), (5,), (object(), -1), (open(os.devnull, "rb"), 0)):
        with contextlib.suppress(Exception):
            made = wrapper(*arguments)
            iter(made)
            made.close()
    start_response("200 OK", [])

    class File:
        def read(self, size: int = -1) -> Any:
            return "text" if size else 5

    return wrapper(File())


@deed
def blocks(environ: Environ, start_response: Any) -> Any:
    threading.Event().wait(0.1)
    return hello(environ, start_response)


@deed
def looks_at_everything(environ: Environ, start_response: Any) -> Any:
    for thing in (environ["wsgi.input"], start_response, environ["wsgi.errors"], sys._getframe()):
        repr(thing)
        for name in dir(thing):
            with contextlib.suppress(Exception):
                getattr(thing, name)
        gc.get_referents(thing)
        with contextlib.suppress(Exception):
            type(thing)()
    return hello(environ, start_response)
