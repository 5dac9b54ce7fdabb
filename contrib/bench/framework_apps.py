"""The same hello world on frameworks, and applications that wait: what is around a server in life.

As in `bench_apps.py`, every server runs exactly these. Each is made when it is asked for, so that
nothing else is imported; the interface is the first part of a name.
"""

import asyncio
import functools
import socket
from collections.abc import Callable
from typing import Any

MESSAGE = {"message": "Hello, world!"}


def asgi_starlette_sync() -> Any:
    """An ordinary function as endpoint: Starlette runs it in its thread pool."""
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    def home(request: Request) -> JSONResponse:
        return JSONResponse(MESSAGE)

    return Starlette(routes=[Route("/json", home)])


def asgi_fastapi() -> Any:
    from fastapi import FastAPI

    app = FastAPI(openapi_url=None)

    @app.get("/json")
    async def home() -> dict[str, str]:
        return MESSAGE

    return app


def _django() -> None:
    from django.conf import settings
    from django.http import HttpRequest, JsonResponse
    from django.urls import path

    def home(request: HttpRequest) -> JsonResponse:
        return JsonResponse(MESSAGE)

    settings.configure(
        ALLOWED_HOSTS=["*"],
        ROOT_URLCONF=(path("json", home),),
        MIDDLEWARE=["django.middleware.common.CommonMiddleware"],
        SECRET_KEY="none",
    )


def asgi_django() -> Any:
    _django()
    from django.core.asgi import get_asgi_application

    return get_asgi_application()


def wsgi_django() -> Any:
    _django()
    from django.core.wsgi import get_wsgi_application

    return get_wsgi_application()


def wsgi_flask() -> Any:
    from flask import Flask

    app = Flask(__name__)

    @app.get("/json")
    def home() -> dict[str, str]:
        return MESSAGE

    return app


# ---- applications that wait ----


async def _answer(send: Any) -> None:
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"13")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"Hello, world!"})


def asgi_yielding() -> Any:
    """Lets the event loop go round once."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(0)
        await _answer(send)

    return app


class _Echo(asyncio.Protocol):
    """What a small database is, as far as the event loop can tell."""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


def asgi_asking() -> Any:
    """Asks a peer by a socket, and waits for its answer: connections are kept and used again."""
    free: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if free:
            reader, writer = free.pop()
        else:
            here, there = socket.socketpair()
            await asyncio.get_running_loop().create_connection(_Echo, sock=there)
            reader, writer = await asyncio.open_connection(sock=here)
        writer.write(b"GET key\r\n")
        await reader.readline()
        free.append((reader, writer))
        await _answer(send)

    return app


MAKERS: dict[str, Callable[[], Any]] = {
    name: value for name, value in globals().items() if name.startswith(("asgi_", "wsgi_"))
}


@functools.cache
def made(name: str) -> Any:
    """Once, however often a server looks."""
    return MAKERS[name]()


def __getattr__(name: str) -> Any:
    if name.endswith("_app") and name.removesuffix("_app") in MAKERS:
        return made(name.removesuffix("_app"))
    raise AttributeError(name)
