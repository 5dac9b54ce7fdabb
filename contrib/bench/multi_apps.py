"""The applications of the benchmarks of many contexts.

Where it matters an answer is the name of its context, `process.thread`, so that the load generator
can count by context. The data is made once by `data.py` and read from its files at import, by the
hook, or in each context, as PPBENCH_LOAD says (import | hook | lifespan). Runs inside the
interpreter under measurement: nothing but the standard library at the top.
"""

import json
import os
import random
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

CPU_STEPS = 5000  # about 200 µs of 3.11 on 2.3 GHz; the work is fixed, not the time
TITLES = int(os.environ.get("PPBENCH_TITLES", "100000"))
DATA = Path(os.environ.get("PPBENCH_DATA", "."))
LOAD = os.environ.get("PPBENCH_LOAD", "import")
NEEDS = os.environ.get("PPBENCH_NEEDS", "")  # of: trie, offsets, libraries, starlette, django
# A prime above any number of titles, and a step: the walk visits titles in no order at all.
PRIME, STEP = 1_000_003, 611_953

trie: Any = None
offsets: Any = None


# -- data ------------------------------------------------------------------------------------------


def make_words(count: int) -> list[str]:
    """Made-up words, the same in every run."""
    rng = random.Random(1)
    words: set[str] = set()
    while len(words) < count:
        parts = [rng.choice("bcdfghjklmnprstvwz") + rng.choice("aeiou") for _ in range(4)]
        words.add("".join(parts[: rng.randint(2, 4)]) + rng.choice(["", "n", "s", "r"]))
    return sorted(words)


WORDS = make_words(1001)  # their pairs are enough for PRIME titles


def title(number: int) -> str:
    """The title of a number: distinct for each."""
    second, first = divmod(number * STEP % PRIME, len(WORDS))
    return f"{WORDS[first].capitalize()}_{WORDS[second]}"


def load() -> None:
    """What NEEDS names: the data from its files, frameworks by import."""
    global trie, offsets
    needs = NEEDS.split(",")
    if "libraries" in needs:  # what the data would need, without it
        import datrie
        import numpy
    if "trie" in needs:
        import datrie

        trie = datrie.Trie.load(str(DATA / f"titles-{TITLES}.trie"))
    if "offsets" in needs:
        import numpy

        offsets = numpy.load(DATA / f"offsets-{TITLES}.npy")
    if "starlette" in needs:
        import starlette.applications
        import starlette.responses
        import starlette.routing
        import starlette.staticfiles
        import starlette.websockets  # noqa: F401
    if "django" in needs:
        import_django()


def import_django() -> None:
    import django
    from django.conf import settings

    settings.configure(
        SECRET_KEY="bench", ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], DEBUG=False, DATABASES={}
    )
    django.setup()
    import django.contrib.admin
    import django.core.handlers.asgi
    import django.db.models
    import django.forms
    import django.template.engine
    import django.views.generic


urlpatterns: list[Any] = []

if LOAD == "import":
    load()


# -- the application, an instance for each context ------------------------------------------------

HEADERS = [(b"content-type", b"text/plain"), (b"content-length", b"24")]
SAME = b"the same for everybody.."


async def answer(send: Send, body: bytes) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    await send({"type": "http.response.body", "body": body})


def burn(steps: int) -> int:
    """Pure Python work."""
    value = 1
    for step in range(steps):
        value = (value * 31 + step) % 1000003
    return value


class Site:
    """One context's application: where its walk through the data is, its name, its own view."""

    def __init__(self) -> None:
        self.name = b""
        self.at = 0
        self.view: Any = None
        self.titles: list[str] = []
        self.handlers: dict[str, App] = {
            "/cpu": self.cpu,
            "/hello": self.hello,
            "/work": self.work,
            "/trie": self.query_trie,
            "/array": self.query_array,
            "/view": self.query_view,
            "/queries": self.queries,
            "/facts": self.facts,
        }
        if "starlette" in NEEDS.split(","):
            self.handlers["/starlette"] = make_starlette()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.lifespan(receive, send)
            return
        if not self.name:
            self.settle()
        await self.handlers[scope["path"]](scope, receive, send)

    def settle(self) -> None:
        """At the first request, for this may have been made before a fork."""
        thread = threading.get_native_id()
        self.name = f"{os.getpid()}.{thread}".encode().ljust(24)
        self.at = thread % PRIME
        # A thousand titles: making one costs more than looking it up.
        self.titles = [title((self.at + 997 * i) % TITLES) for i in range(1000)]
        if offsets is not None:
            self.view = offsets[:]

    async def cpu(self, scope: Scope, receive: Receive, send: Send) -> None:
        if burn(CPU_STEPS) < 0:
            raise AssertionError
        await answer(send, SAME)

    async def hello(self, scope: Scope, receive: Receive, send: Send) -> None:
        await answer(send, SAME)

    async def work(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As many microseconds of work as the query says, by this thread's processor clock."""
        micros = int(scope["query_string"] or b"0")
        end = time.thread_time_ns() + micros * 1000
        while micros and time.thread_time_ns() < end:
            pass
        await answer(send, self.name)

    async def query_trie(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.at += 1
        if trie[self.titles[self.at % 1000]] < 0:
            raise AssertionError
        await answer(send, SAME)

    async def query_array(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.at = (self.at + STEP) % PRIME
        if offsets.searchsorted(self.at) < 0:
            raise AssertionError
        await answer(send, SAME)

    async def query_view(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.at = (self.at + STEP) % PRIME
        if self.view.searchsorted(self.at) < 0:
            raise AssertionError
        await answer(send, SAME)

    async def queries(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As many queries of trie and offsets as the query says, each one checked."""
        for _ in range(int(scope["query_string"] or b"1")):
            self.at = (self.at + STEP) % PRIME
            number = self.at % TITLES
            if trie[title(number)] != number:
                raise AssertionError("a wrong answer of the trie")
            if offsets.searchsorted(number * 7) != number:
                raise AssertionError("a wrong answer of the array")
        await answer(send, self.name)

    async def facts(self, scope: Scope, receive: Receive, send: Send) -> None:
        gil = getattr(sys, "_is_gil_enabled", lambda: True)()
        await answer(send, json.dumps({"gil": gil}).encode().ljust(24))

    async def lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup" and LOAD == "lifespan":
                load()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return


def make_starlette() -> App:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    async def home(request: Request) -> JSONResponse:
        return JSONResponse({"message": "Hello, world!"})

    app: App = Starlette(routes=[Route("/starlette", home)])
    return app
