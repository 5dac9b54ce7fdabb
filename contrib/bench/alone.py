"""What an application costs without a server: called in a loop, in one process.

Runs in ppserver's environment: `python alone.py MODULE:ATTR asgi|wsgi PATH SECONDS WIDTH` prints
the microseconds of user time a call took, of all threads, with WIDTH calls of an ASGI application
at once. `... WIDTH CALLS` ends after so many calls.
"""

import asyncio
import io
import math
import resource
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

from inside import scope_of
from launch import load

BATCH = 100


def user_s() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_utime


async def asgi(app: Any, path: str, seconds: float, width: int, most: int) -> float:
    template = scope_of(path)
    statuses = set()

    def receiver() -> Callable[[], Awaitable[dict[str, Any]]]:
        messages = [{"type": "http.request", "body": b"", "more_body": False}]

        async def receive() -> dict[str, Any]:
            if not messages:  # Until it is cancelled: the client stays.
                await asyncio.get_running_loop().create_future()
            return messages.pop()

        return receive

    async def send(message: dict[str, Any]) -> None:
        statuses.add(message.get("status", 200))

    async def some(end: float, most: int) -> int:
        calls = 0
        while calls < most and time.monotonic() < end:
            calls += 1
            await app(dict(template), receiver(), send)
        return calls

    async def all_at_once(end: float, most: int) -> int:
        return sum(await asyncio.gather(*(some(end, most // width) for _ in range(width))))

    await all_at_once(math.inf, BATCH)
    began = user_s()
    calls = await all_at_once(time.monotonic() + seconds, most)
    check(statuses)
    return (user_s() - began) / calls * 1e6


def wsgi(app: Any, path: str, seconds: float, most: int) -> float:
    template = {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": path,
        "QUERY_STRING": "",
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "8000",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_HOST": "127.0.0.1:8000",
        "REMOTE_ADDR": "127.0.0.1",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }
    statuses = set()

    def start_response(status: str, headers: Any, exc_info: Any = None) -> Any:
        statuses.add(int(status[:3]))
        return None

    def batch() -> None:
        for _ in range(BATCH):
            body = app(dict(template), start_response)
            b"".join(body)
            if hasattr(body, "close"):
                body.close()

    batch()
    calls, began, end = 0, user_s(), time.monotonic() + seconds
    while time.monotonic() < end and calls < most:
        batch()
        calls += BATCH
    check(statuses)
    return (user_s() - began) / calls * 1e6


def check(statuses: set[int]) -> None:
    if statuses != {200}:
        sys.exit(f"it answers {sorted(statuses)}")


def main() -> None:
    where, interface, path, seconds, width, *calls = sys.argv[1:]
    app, most = load(where), int(calls[0]) if calls else sys.maxsize
    if interface == "asgi":
        print(asyncio.run(asgi(app, path, float(seconds), int(width), most)))
    else:
        print(wsgi(app, path, float(seconds), most))


if __name__ == "__main__":
    main()
