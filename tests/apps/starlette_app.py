"""A Starlette application with a bit of everything."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import hashlib
import os
import pathlib
import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

from starlette.applications import Starlette
from starlette.background import BackgroundTask, BackgroundTasks
from starlette.endpoints import HTTPEndpoint
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import (
    FileResponse,
    JSONResponse,
    PlainTextResponse,
    RedirectResponse,
    Response,
    StreamingResponse,
)
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from support import ExpectedError, record

FILES = pathlib.Path(os.environ["TEST_APP_DIRECTORY"]) / "files"
FILES.mkdir(exist_ok=True)
if not (FILES / "large.bin").exists():
    # Renamed into place: two contexts may be doing this at once.
    scratch = FILES / f"large.{os.getpid()}"
    scratch.write_bytes(bytes(range(256)) * 4096)
    scratch.rename(FILES / "large.bin")

request_name: contextvars.ContextVar[str] = contextvars.ContextVar("request_name", default="")


class Base(BaseHTTPMiddleware):
    """Not for paths below /plain: it hides disconnects and errors in streams."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].startswith("/plain/"):
            await self.app(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)

    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        request_name.set(request.headers.get("x-name", "nobody"))
        request.state.seen_by = "base middleware"
        response = await call_next(request)
        response.headers["x-base-middleware"] = request_name.get()
        return response


class Pure:
    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_more(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"x-pure-middleware", b"yes")]
            await send(message)

        await self.app(scope, receive, send_more)


def sync_hello(request: Request) -> Response:
    return JSONResponse({"hello": "sync", "thread": threading.current_thread().name})


async def async_hello(request: Request) -> Response:
    return JSONResponse({"hello": "async", "query": dict(request.query_params)})


async def echo(request: Request) -> Response:
    data = await request.body()
    kind = request.headers.get("content-type", "application/octet-stream")
    return Response(data, media_type=kind)


async def json_echo(request: Request) -> Response:
    return JSONResponse(await request.json())


async def digest(request: Request) -> Response:
    """Reads the body as a stream."""
    total, sha = 0, hashlib.sha256()
    async for part in request.stream():
        total += len(part)
        sha.update(part)
    return JSONResponse({"size": total, "sha256": sha.hexdigest()})


async def upload(request: Request) -> Response:
    async with request.form() as form:
        result: dict[str, Any] = {}
        for name, value in form.multi_items():
            if isinstance(value, str):
                result[name] = value
            else:
                data = await value.read()
                result[name] = {
                    "filename": value.filename,
                    "type": value.content_type,
                    "size": len(data),
                    "sha256": hashlib.sha256(data).hexdigest(),
                }
    return JSONResponse(result)


async def async_stream(request: Request) -> Response:
    async def parts() -> AsyncIterator[bytes]:
        for number in range(50):
            yield b"line %d\n" % number
            if number % 10 == 0:
                await asyncio.sleep(0)

    return StreamingResponse(parts(), media_type="text/plain")


async def sync_stream(request: Request) -> Response:
    def parts() -> Iterator[bytes]:
        for number in range(20):
            yield b"line %d\n" % number

    return StreamingResponse(parts(), media_type="text/plain")


async def endless(request: Request) -> Response:
    """Streams until the client has gone; the generator is closed then."""

    async def parts() -> AsyncIterator[bytes]:
        record("stream began")
        try:
            while True:
                yield b"x" * 1000
                await asyncio.sleep(0.001)
        finally:
            record("stream closed")

    return StreamingResponse(parts())


async def collect(request: Request) -> Response:
    return PlainTextResponse(str(gc.collect()))


async def background(request: Request) -> Response:
    name = request.query_params["name"]
    return PlainTextResponse("started", background=BackgroundTask(record, f"sync {name}"))


async def backgrounds(request: Request) -> Response:
    tasks = BackgroundTasks()

    async def later(name: str) -> None:
        await asyncio.sleep(0.005)
        record(f"async {name} as {request_name.get()}")

    for name in ("one", "two"):
        tasks.add_task(later, name)
    return PlainTextResponse("started", background=tasks)


async def failing_background(request: Request) -> Response:
    async def fails() -> None:
        raise ExpectedError("background")

    return PlainTextResponse("started", background=BackgroundTask(fails))


async def file(request: Request) -> Response:
    return FileResponse(FILES / "large.bin", filename="large file.bin")


async def raises(request: Request) -> Response:
    raise ExpectedError("endpoint")


def raises_in_thread(request: Request) -> Response:
    raise ExpectedError("sync endpoint")


async def raises_http(request: Request) -> Response:
    raise HTTPException(418, "a teapot", headers={"x-pot": "short and stout"})


class HandledError(Exception):
    pass


async def raises_handled(request: Request) -> Response:
    raise HandledError("handled")


async def on_handled(request: Request, exc: Exception) -> Response:
    return PlainTextResponse(f"handler: {exc}", status_code=409)


async def stream_raises(request: Request) -> Response:
    async def parts() -> AsyncIterator[bytes]:
        yield b"first"
        await asyncio.sleep(0)
        raise ExpectedError("stream")

    return StreamingResponse(parts())


async def redirect(request: Request) -> Response:
    return RedirectResponse("/async?redirected=1")


async def cookies(request: Request) -> Response:
    response = JSONResponse(dict(request.cookies))
    response.set_cookie("one", "1", httponly=True)
    response.set_cookie("two", "2")
    return response


async def session(request: Request) -> Response:
    request.session["count"] = request.session.get("count", 0) + 1
    return JSONResponse(dict(request.session))


async def state(request: Request) -> Response:
    same = request.state.loop is asyncio.get_running_loop()
    seen = {"resource": request.state.resource, "app": request.app.state.name}
    return JSONResponse({**seen, "same_loop": same, "seen_by": request.state.seen_by})


async def url(request: Request) -> Response:
    return JSONResponse(
        {
            "url": str(request.url),
            "base": str(request.base_url),
            "made": str(request.url_for("item", number=5)),
            "client": request.client.host if request.client else None,
            "params": request.path_params,
        }
    )


async def slow(request: Request) -> Response:
    """Notices that its client has gone."""
    record("slow began")
    while not await request.is_disconnected():  # noqa: ASYNC110
        await asyncio.sleep(0.001)
    record("slow saw the disconnect")
    return PlainTextResponse("nobody reads this")


async def cut_upload(request: Request) -> Response:
    try:
        async for part in request.stream():
            if part:
                record("upload began")
    except ClientDisconnect:
        record("upload was cut")
    return PlainTextResponse("")


def blocking(request: Request) -> Response:
    time.sleep(0.05)
    return PlainTextResponse("blocked a thread only")


class Endpoint(HTTPEndpoint):
    async def get(self, request: Request) -> Response:
        return PlainTextResponse("get")

    def post(self, request: Request) -> Response:
        return PlainTextResponse("post")


@contextlib.asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[dict[str, Any]]:
    record("startup")
    app.state.name = "starlette application"
    yield {"resource": "from the lifespan", "loop": asyncio.get_running_loop()}
    record("shutdown")


app = Starlette(
    routes=[
        Route("/sync", sync_hello),
        Route("/async", async_hello),
        Route("/echo", echo, methods=["POST", "PUT", "PATCH"]),
        Route("/json", json_echo, methods=["POST"]),
        Route("/digest", digest, methods=["POST"]),
        Route("/upload", upload, methods=["POST"]),
        Route("/stream/async", async_stream),
        Route("/stream/sync", sync_stream),
        Route("/stream/endless", endless),
        Route("/collect", collect),
        Route("/plain/stream-raises", stream_raises),
        Route("/background", background),
        Route("/backgrounds", backgrounds),
        Route("/background/fails", failing_background),
        Route("/file", file),
        Route("/raises", raises),
        Route("/raises/thread", raises_in_thread),
        Route("/raises/http", raises_http),
        Route("/raises/handled", raises_handled),
        Route("/redirect", redirect),
        Route("/cookies", cookies),
        Route("/session", session),
        Route("/state", state),
        Route("/items/{number:int}", url, name="item"),
        Route("/plain/slow", slow),
        Route("/cut-upload", cut_upload, methods=["POST"]),
        Route("/blocking", blocking),
        Route("/endpoint", Endpoint),
        Mount("/static", StaticFiles(directory=FILES)),
    ],
    middleware=[
        Middleware(Pure),
        Middleware(CORSMiddleware, allow_origins=["https://example.org"]),
        Middleware(SessionMiddleware, secret_key="only a test"),
        Middleware(GZipMiddleware, minimum_size=2000),
        Middleware(Base),
    ],
    exception_handlers={HandledError: on_handled},
    lifespan=lifespan,
)
