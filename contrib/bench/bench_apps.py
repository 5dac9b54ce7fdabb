"""The applications under measurement; every server runs exactly these.

One small callable per workload, so that no figure contains routing. Names match `workloads.py`.
Runs inside each peer's own environment: nothing but the standard library may be imported at the
top, and Starlette only where it is asked for.
"""

import json
import os
import time
import wsgiref.util
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, cast

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

HELLO = b"Hello, world!"
BIG = b"x" * (100 * 1024)
CHUNK = b"y" * 1024
CHUNKS = 100
FILE = os.environ.get("BENCH_FILE", "")

PLAIN_HEADERS = [(b"content-type", b"text/plain"), (b"content-length", b"13")]
BIG_HEADERS = [(b"content-type", b"application/octet-stream"), (b"content-length", b"102400")]
BYTES_HEADERS = [(b"content-type", b"application/octet-stream")]


async def plain(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": PLAIN_HEADERS})
    await send({"type": "http.response.body", "body": HELLO})


async def json_(scope: Scope, receive: Receive, send: Send) -> None:
    body = json.dumps({"message": "Hello, world!"}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
    ]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    parts = []
    while True:
        message = await receive()
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            break
    body = b"".join(parts)  # a single bytes object comes back as it is; fastpysgi gives memoryviews
    headers = [
        (b"content-type", b"application/octet-stream"),
        (b"content-length", str(len(body)).encode()),
    ]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def big(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": BIG_HEADERS})
    await send({"type": "http.response.body", "body": BIG})


async def stream(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": BYTES_HEADERS})
    for _ in range(CHUNKS):
        await send({"type": "http.response.body", "body": CHUNK, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


def wsgi(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    start_response("200 OK", [("content-type", "text/plain"), ("content-length", "13")])
    return [HELLO]


def wsgi_work(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Five milliseconds of processor time with the GIL held."""
    end = time.thread_time() + 0.005
    while time.thread_time() < end:
        sum(range(1000))
    return wsgi(environ, start_response)


def wsgi_json(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    body = json.dumps({"message": "Hello, world!"}).encode()
    headers = [("content-type", "application/json"), ("content-length", str(len(body)))]
    start_response("200 OK", headers)
    return [body]


def wsgi_echo(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
    headers = [("content-type", "application/octet-stream"), ("content-length", str(len(body)))]
    start_response("200 OK", headers)
    return [body]


def wsgi_stream(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    start_response("200 OK", [("content-type", "application/octet-stream")])
    return (CHUNK for _ in range(CHUNKS))


def wsgi_file(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    file = open(FILE, "rb")  # noqa: SIM115 (the server closes it)
    headers = [("content-type", "application/octet-stream"), ("content-length", str(len(BIG)))]
    start_response("200 OK", headers)
    wrapper: Any = environ.get("wsgi.file_wrapper", wsgiref.util.FileWrapper)
    return cast("Iterable[bytes]", wrapper(file, 65536))


def __getattr__(name: str) -> Any:
    if name == "starlette":
        return make_starlette()
    raise AttributeError(name)


def make_starlette() -> Any:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    async def home(request: Request) -> JSONResponse:
        return JSONResponse({"message": "Hello, world!"})

    return Starlette(routes=[Route("/json", home)])
