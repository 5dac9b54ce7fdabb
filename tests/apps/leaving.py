"""Work that only its client's leaving can end, in each framework, and a count of what goes on.

``/FRAMEWORK/KIND``: `before` sends nothing, `after` one piece, `busy` goes on sending, `ticking`
slowly, `view` has not begun its response, `quick` answers at once. ``/state`` says what is left.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import gc
import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, MutableMapping
from typing import Any

import a2wsgi
import django.conf
import django.http
import django.urls
import fastapi
import litestar
import litestar.response
import quart
import sse_starlette
import starlette.applications
import starlette.middleware
import starlette.middleware.base
import starlette.requests
import starlette.responses
import starlette.routing
from django.core.asgi import get_asgi_application
from support import ExpectedError, record

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

entered: collections.Counter[str] = collections.Counter()
left: collections.Counter[str] = collections.Counter()


@contextlib.contextmanager
def counted(name: str) -> Any:
    entered[name] += 1
    try:
        yield
    finally:
        left[name] += 1


async def pieces(kind: str, name: str) -> AsyncIterator[bytes]:
    with counted(name):
        if kind == "before":
            await asyncio.Event().wait()
        if kind in ("after", "busy", "ticking"):
            yield b"one piece"
        while kind == "ticking":
            await asyncio.sleep(0.2)
            yield b"tick"
        while kind == "busy":
            await asyncio.sleep(0)
            yield b"x" * 1000
        await asyncio.Event().wait()


async def events(kind: str, name: str) -> AsyncIterator[dict[str, str]]:
    async for piece in pieces(kind, name):
        yield {"data": piece.decode()}


async def view(name: str) -> None:
    with counted(name):
        await asyncio.Event().wait()


# ---- Starlette, with and without its middleware, and sse-starlette ----


async def starlette_endpoint(request: starlette.requests.Request) -> starlette.responses.Response:
    kind, name = request.path_params["kind"], request.scope["name"]
    if kind == "quick":
        return starlette.responses.PlainTextResponse("quick")
    if name == "sse":
        return sse_starlette.EventSourceResponse(events(kind, name))
    return starlette.responses.StreamingResponse(pieces(kind, name))


class Passing(starlette.middleware.base.BaseHTTPMiddleware):
    async def dispatch(self, request: Any, call_next: Any) -> Any:
        return await call_next(request)


async def handle(request: Any, error: Exception) -> starlette.responses.Response:
    record(f"exception handler: {error!r}")
    return starlette.responses.PlainTextResponse("handled", 500)


routes = [starlette.routing.Route("/{kind}", starlette_endpoint)]
bare = starlette.applications.Starlette(routes=routes, exception_handlers={Exception: handle})
stacked = starlette.applications.Starlette(
    routes=routes,
    middleware=[starlette.middleware.Middleware(Passing)] * 3,
    exception_handlers={Exception: handle},
)

# ---- FastAPI ----

fast = fastapi.FastAPI(exception_handlers={Exception: handle})


async def dependency() -> AsyncIterator[str]:
    with counted("fastapi-dependency"):
        yield "given"


@fast.get("/{kind}")
async def fast_endpoint(kind: str, given: str = fastapi.Depends(dependency)) -> fastapi.Response:
    if kind == "quick":
        return starlette.responses.PlainTextResponse("quick")
    return starlette.responses.StreamingResponse(pieces(kind, "fastapi"))


# ---- Litestar ----


@litestar.get("/{kind:str}")
async def litestar_endpoint(kind: str) -> Any:
    if kind == "quick":
        return litestar.Response("quick", media_type="text/plain")
    return litestar.response.Stream(pieces(kind, "litestar"))


light = litestar.Litestar([litestar_endpoint], openapi_config=None)

# ---- Quart ----

pint = quart.Quart(__name__)


@pint.get("/<kind>")
async def quart_endpoint(kind: str) -> Any:
    if kind == "quick":
        return "quick"
    if kind == "view":
        await view("quart")
    response = await quart.make_response(pieces(kind, "quart"))
    response.timeout = None
    return response


# ---- WSGI by a2wsgi, in two threads ----


def wsgi(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
    if environ["PATH_INFO"] == "/raises":
        raise ExpectedError("in WSGI")
    start_response("200 OK", [("content-type", "text/plain")])
    if environ["PATH_INFO"] == "/quick":
        yield b"quick"
        return
    with counted("a2wsgi"):
        for _ in range(20):
            yield b"x" * 1000
            threading.Event().wait(0.005)


# ---- Django ----


async def django_endpoint(request: Any, kind: str) -> django.http.HttpResponseBase:
    if kind == "quick":
        return django.http.HttpResponse("quick")
    if kind == "view":
        await view("django")
    return django.http.StreamingHttpResponse(pieces(kind, "django"))


urlpatterns = [django.urls.path("<kind>", django_endpoint)]
django.conf.settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], SECRET_KEY="x" * 50)
jazz = get_asgi_application()

APPS: dict[str, Any] = {
    "starlette": bare,
    "stacked": stacked,
    "sse": bare,
    "fastapi": fast,
    "litestar": light,
    "quart": pint,
    "django": jazz,
    "a2wsgi": a2wsgi.WSGIMiddleware(wsgi, workers=2),
}


async def state(send: Send) -> None:
    gc.collect()  # What is left at a `yield` may hang on a cycle of tasks and exceptions.
    await asyncio.sleep(0)
    tasks = sum("watcher" not in repr(task) for task in asyncio.all_tasks())  # sse-starlette's
    sockets = 0
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            sockets += os.readlink(f"/proc/self/fd/{fd}").startswith("socket:")
    text = repr({"entered": dict(entered), "left": dict(left), "tasks": tasks, "sockets": sockets})
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": text.encode()})


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        record(repr((dict(entered), dict(left))))
        await send({"type": "lifespan.shutdown.complete"})
        return None
    if scope["path"] == "/state":
        return await state(send)
    _, name, kind = scope["path"].split("/")
    path = f"/{kind}"
    scope = {**scope, "path": path, "raw_path": path.encode(), "name": name}
    return await APPS[name](scope, receive, send)
