"""`parallel.http`: which handler answers a path, and what it is called with."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

pytest.importorskip("h11")

from parallel.http import routing
from parallel.http.server import (
    HttpServer,
    Request,
    json_serialization,
    make_routes,
    route,
    router,
)


class Routed(HttpServer):
    @route
    def plain(self, request: Request) -> str:
        return "plain"

    @route("/x", "/x/y")
    def several(self, request: Request, rest: str | None = None) -> str:
        return f"several {rest}"

    @route("/x/y/z", methods=["POST"])
    def deep(self, request: Request, *args: str, **others: str) -> str:
        return f"deep {args} {others}"

    @route("/")
    def root_page(self, request: Request) -> str:
        return "root"

    def get_old_way(self, request: Request, limit: str = "") -> str:
        return f"old {limit}"

    def get_helper(self, number: int) -> None: ...

    def get_needs(self, request: Request, more: int) -> None: ...

    async def get_later(self, request: Request) -> None: ...


FOUND = [
    ("/", "root_page", None),
    ("/plain", "plain", None),
    ("/plain/", "plain", None),
    ("/plain/a/b", "plain", "a/b"),
    ("/plain//", "plain", "/"),
    ("/plainer", None, None),
    ("/PLAIN", None, None),
    ("/%70lain", "plain", None),
    ("/plain%2Fa", None, None),
    ("/plain/a%2Fb", "plain", "a/b"),
    ("/plain/%E9%AA%8C", "plain", "\u9a8c"),
    ("/x/other", "several", "other"),
    ("/x/y", "several", None),
    ("/x/y/other", "several", "other"),
    ("/x/y/z/other", "deep", "other"),
    ("/x/yz", "several", "yz"),
    ("//", None, None),
    ("/absent", None, None),
    ("/\u00e9", None, None),
]


@pytest.mark.parametrize("with_trie", [False, True], ids=["dict", "trie"])
@pytest.mark.parametrize(("path", "name", "rest"), FOUND)
def test_routes(
    monkeypatch: pytest.MonkeyPatch, with_trie: bool, path: str, name: str | None, rest: str | None
) -> None:
    if with_trie:
        trie = pytest.importorskip("datrie").Trie
        monkeypatch.setattr(routing, "_trie_type", lambda: trie)
    else:
        monkeypatch.setattr(routing, "_trie_type", lambda: None)
    routes = make_routes(Routed)
    assert (routes._trie is not None) == with_trie
    function, found = router(routes, path)
    assert (function.__name__ if function is not None else None, found) == (name, rest)
    assert sorted(routes) == ["/", "/plain", "/x", "/x/y", "/x/y/z"]


def test_the_trie_is_taken_when_it_is_there() -> None:
    """In an interpreter of its own: what is imported here would count."""
    program = (
        "import sys, parallel.http.server as s\n"
        "there = 'datrie' in sys.argv[1:]\n"
        "if not there: sys.modules['datrie'] = None\n"
        "else: import datrie\n"
        "routes = s.make_routes({'/x': lambda request: None})\n"
        "assert (routes._trie is not None) == there\n"
        "assert s.router(routes, '/x/y')[1] == 'y'\n"
    )
    try:
        import datrie  # noqa: F401

        ways = ["none", "datrie"]
    except ImportError:
        ways = ["none"]
    for way in ways:
        subprocess.run([sys.executable, "-c", program, way], check=True, timeout=60)


@pytest.mark.parametrize("path", ["/plain/%ff", "/plain/%00", "/plain/a%C3"])
def test_a_rest_that_is_no_text(path: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        router(make_routes(Routed), path)


def test_routes_of_functions_and_instances() -> None:
    def page(request: Request) -> str:
        return "page"

    assert router(make_routes({"/page/": page}), "/page/1") == (page, "1")
    server = Routed()
    function, _ = router(make_routes(server), "/plain")
    assert function(Request()) == "plain"


def test_the_way_of_original_programs() -> None:
    routes = make_routes()
    route = router(routes)

    class Server(HttpServer):
        routes_of_all = routes

        @route
        def json(self, request: Request) -> None:
            json_serialization(request, obj={"message": "Hello, World"})

        @route("/other")
        def moved(self, request: Request) -> None: ...

    assert sorted(routes) == ["/json", "/other"]
    assert sorted(make_routes(Server)) == ["/json", "/other"]
    request = Request()
    router(make_routes(Server()), "/json")[0](request)
    assert json.loads(bytes(request).partition(b"\r\n\r\n")[2]) == {"message": "Hello, World"}


def test_methods_by_name() -> None:
    """What PyParallel had before it had `route`; nothing else that begins with get_ is served."""
    assert list(routing.overloads(Routed)) == ["get_old_way"]
    assert routing.overload_name("GET", "/old/way/") == "get_old_way"
    assert routing.overload_name("HEAD", "/old_way") == "get_old_way"
    assert routing.overload_name("POST", "/x") == "post_x"
    assert routing.overload_name("GET", "/") == "get"


def test_subclasses_and_merges() -> None:
    class Base(HttpServer):
        @route("/kept")
        def one(self, request: Request) -> str:
            return "base"

        @route
        def gone(self, request: Request) -> str:
            return "base"

    class Derived(Base):
        def one(self, request: Request) -> str:
            return "derived"

        gone = None  # type: ignore[assignment]

    class Other(HttpServer):
        @route
        def kept(self, request: Request) -> str:
            return "never"

        @route
        def added(self, request: Request) -> str:
            return "other"

        def get_by_name(self, request: Request) -> str:
            return "other"

    assert sorted(make_routes(Derived)) == ["/kept"]
    before = Derived._plan()
    assert Derived.merge(Other) is Derived
    plan = Derived._plan()
    assert plan is not before
    assert plan is Derived._plan()
    assert sorted(plan.routes) == ["/added", "/kept"]
    assert list(plan.overloads) == ["get_by_name"]
    handler, _ = plan.routes.find("/kept")
    assert handler is not None
    assert handler.function is Derived.one
    assert list(Base._plan().routes) == ["/gone", "/kept"]


def test_merges_that_cannot_be() -> None:
    class One(HttpServer): ...

    class Two(HttpServer): ...

    with pytest.raises(TypeError, match="expected an HttpServer class"):
        One.merge(object)  # type: ignore[arg-type]
    One.merge(Two)
    for target, other in ((One, One), (Two, One)):
        with pytest.raises(ValueError, match="would be merged into itself"):
            target.merge(other)


@pytest.mark.parametrize("path", ["x", "", "/x?y", "/x#y", "/x\0", "/x//y"])
def test_what_is_no_route(path: str) -> None:
    with pytest.raises(ValueError, match="route"):
        route(path)
    with pytest.raises(ValueError, match="route"):
        make_routes({path: print})


def test_what_is_no_handler() -> None:
    async def later(request: Request) -> None: ...

    with pytest.raises(TypeError, match="no coroutine function"):
        make_routes({"/x": later})
    with pytest.raises(TypeError, match="takes the request"):
        make_routes({"/x": lambda: None})
    with pytest.raises(TypeError, match="takes the request"):
        make_routes({"/x": lambda *, request: None})

    class Twice(HttpServer):
        @route("/x")
        def one(self, request: Request) -> None: ...

        @route("/x/")
        def two(self, request: Request) -> None: ...

    with pytest.raises(ValueError, match="one and two both want /x/"):
        make_routes(Twice)


CALLS = [
    (lambda r: (), None, {}, ()),
    (lambda r: (), "rest", {"x": "1"}, ()),
    (lambda r, path=None: (path,), None, {}, (None,)),
    (lambda r, path=None: (path,), "rest", {"path": "query", "x": "1"}, ("rest",)),
    (lambda r, path=None: (path,), None, {"path": "query"}, ("query",)),
    (lambda r, path, /: (path,), "rest", {"path": "query"}, ("rest",)),
    (lambda r, *args: args, "rest", {"args": "x"}, ("rest",)),
    (lambda r, *args: args, None, {"x": "1"}, ()),
    (lambda r, *, limit="5": (limit,), "rest", {"limit": "3", "x": "1"}, ("3",)),
    (lambda r, **k: (k,), "rest", {"x": "1", "r": "2"}, ({"x": "1"},)),
    (lambda r, p, q: (p, q), "rest", {"q": "2"}, ("rest", "2")),
    (lambda r, p, q: (p, q), None, {"p": "1", "q": "2"}, ("1", "2")),
    (lambda *args, **k: (*args[1:], k), "rest", {"x": "1"}, ("rest", {"x": "1"})),
]


@pytest.mark.parametrize(("function", "rest", "query", "expected"), CALLS)
def test_arguments(function: Any, rest: str | None, query: dict[str, str], expected: Any) -> None:
    assert routing.Handler(function, None).call((Request(),), rest, query) == expected


@pytest.mark.parametrize(
    ("function", "rest", "query", "missing"),
    [
        (lambda r, p: None, None, {}, "p"),
        (lambda r, p, q: None, "rest", {}, "q"),
        (lambda r, p, q: None, "rest", {"p": "1"}, "q"),
        (lambda r, *, q: None, "rest", {}, "q"),
        (lambda r, p, /: None, None, {"p": "1"}, "p"),
    ],
)
def test_missing_arguments(
    function: Any, rest: str | None, query: dict[str, str], missing: str
) -> None:
    handler = routing.Handler(function, None)
    with pytest.raises(routing.MissingArgumentError, match=f"^{missing}$"):
        handler.call((Request(),), rest, query)


def test_a_type_error_inside_of_a_handler_is_its_own() -> None:
    calls = []

    def handler(request: Request, path: str = "", **query: str) -> None:
        calls.append((path, query))
        raise TypeError("inside")

    with pytest.raises(TypeError, match="inside"):
        routing.Handler(handler, None).call((Request(),), "x", {"y": "1"})
    assert calls == [("x", {"y": "1"})]
