"""Which handler answers a path, and with which arguments it is called.

A route is found by its longest prefix that ends at a slash, in a `datrie.Trie` if that is there and
in a dict if not. What a handler takes is read from its signature once, when routes are made; tables
are not changed afterwards, so threads share them.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar, overload
from urllib.parse import unquote_to_bytes

from parallel.http.messages import decoded

Function = TypeVar("Function", bound=Callable[..., Any])

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_OVERLOADED = ("get", "post", "put", "delete", "patch", "options")
_BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


class MissingArgumentError(Exception):
    """A request without something that its handler cannot be called without; says its name."""


@overload
def route(function: Function, /) -> Function: ...


@overload
def route(*paths: str, methods: Iterable[str] = ...) -> Callable[[Function], Function]: ...


def route(*paths: Any, methods: Iterable[str] = ("GET",)) -> Any:
    """Make a method the handler of a path: ``@route`` of the path with its name, ``@route("/x",
    "/y")`` of those.

    ``methods``: what may be asked for; GET includes HEAD. A path answers what is below it as well:
    of ``/x/some/thing`` the handler gets ``"some/thing"``, if it takes an argument behind the
    request. ``/`` answers itself only. Raises ValueError for what is no path.
    """
    allowed = tuple(methods)
    if len(paths) == 1 and not isinstance(paths[0], str):
        function = paths[0]
        function.parallel_route = ((f"/{function.__name__}",), allowed)
        return function
    for path in paths:
        checked_path(path)

    def decorate(function: Function) -> Function:
        names = paths or (f"/{function.__name__}",)
        function.parallel_route = (names, allowed)  # type: ignore[attr-defined]
        return function

    return decorate


def checked_path(path: str) -> str:
    """The path as a key: without a slash at its end. Raises ValueError."""
    if not isinstance(path, str) or not path.startswith("/") or set("?#\0") & set(path):
        raise ValueError(f"not the path of a route: {path!r}")
    if "//" in path:
        raise ValueError(f"a route with an empty part: {path!r}")
    return path.rstrip("/")


class Handler:
    """A function and how it is called.

    ``owner`` is the class whose instance the function wants first, or None. The path goes to the
    first positional parameter behind the request; query arguments go to parameters of their names,
    all of them if there is ``**kwargs``; what the function does not take is left out.
    """

    __slots__ = ("allow", "function", "methods", "names", "owner", "path_name", "required", "takes")

    def __init__(
        self, function: Callable[..., Any], owner: type | None, methods: Iterable[str] = ("GET",)
    ) -> None:
        if inspect.iscoroutinefunction(function):
            raise TypeError(f"{function.__qualname__}: a handler is no coroutine function")
        self.function = function
        self.owner = owner
        self.methods = frozenset(methods)
        if "GET" in self.methods:
            self.methods |= {"HEAD"}
        self.allow = ", ".join(sorted(self.methods))
        self._read_signature()

    def _read_signature(self) -> None:
        parameters = list(inspect.signature(self.function).parameters.values())
        blocked = set()
        for _ in range(1 if self.owner is None else 2):  # self, request
            if parameters and parameters[0].kind in _POSITIONAL:
                blocked.add(parameters.pop(0).name)
            elif not parameters or parameters[0].kind is not inspect.Parameter.VAR_POSITIONAL:
                name = getattr(self.function, "__qualname__", repr(self.function))
                raise TypeError(f"{name}: a handler takes the request")
        first = parameters[0] if parameters else None
        self.takes = first is not None and (
            first.kind in _POSITIONAL or first.kind is inspect.Parameter.VAR_POSITIONAL
        )
        self.path_name = first.name if first is not None and first.kind in _POSITIONAL else None
        by_name = {p.name for p in parameters if p.kind in _BY_NAME}
        anything = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters)
        positional = {p.name for p in parameters if p.kind is inspect.Parameter.POSITIONAL_ONLY}
        # (may be given, must not be given): None stands for any name.
        self.names = (None if anything else by_name, blocked | positional)
        self.required = tuple(
            p.name
            for p in parameters
            if p.default is p.empty and (p.kind in _POSITIONAL or p.kind in _BY_NAME)
        )

    def call(self, before: tuple[Any, ...], rest: str | None, query: Mapping[str, str]) -> Any:
        """Call it with ``before``, the path argument if there is one, and what the query has.

        Raises MissingArgumentError, and whatever the function raises.
        """
        function, required = self.function, self.required
        has_path = rest is not None and self.takes
        if not query and not required:
            return function(*before, rest) if has_path else function(*before)
        may, must_not = self.names
        keywords = {
            key: value
            for key, value in query.items()
            if (may is None or key in may) and key not in must_not
        }
        if has_path:
            if self.path_name is not None:
                keywords.pop(self.path_name, None)
            before = (*before, rest)
        for name in required:
            if name not in keywords and not (has_path and name == self.path_name):
                raise MissingArgumentError(name)
        return function(*before, **keywords)


def _escaped_key(path: str) -> str:
    """A path as it is looked up: UTF-8 bytes as Latin-1 characters, ``%2F`` left as it is.

    A trie knows 255 characters; an escaped slash separates nothing (RFC 3986 section 2.2).
    """
    if not path.isascii():
        path = path.encode("utf-8").decode("latin-1")
    if "%" not in path:
        return path
    kept = path.replace("%2F", "%252F").replace("%2f", "%252F")
    return unquote_to_bytes(kept.encode("latin-1")).decode("latin-1")


def _trie_type() -> Any:
    """`datrie.Trie`, or None. Where importing it would turn the GIL on again, it is used only if
    the program has imported it itself."""
    gil_is_on = getattr(sys, "_is_gil_enabled", lambda: True)
    if not gil_is_on() and "datrie" not in sys.modules:
        return None
    try:
        return importlib.import_module("datrie").Trie
    except ImportError:
        return None


class Routes:
    """Paths and their handlers; made once and then only read."""

    def __init__(self, handlers: Mapping[str, Handler]) -> None:
        self._root = handlers.get("")
        self._paths = list(handlers)
        keys = {
            path.encode("utf-8").decode("latin-1") + "/": (path.count("/"), handler)
            for path, handler in handlers.items()
            if path
        }
        self._depth = max((count for count, _ in keys.values()), default=0)
        trie_type = _trie_type() if keys else None
        self._trie: Any = None
        self._dict = keys
        if trie_type is not None:
            self._trie = trie_type(ranges=[("\x01", "\xff")])
            for key, value in keys.items():
                self._trie[key] = value

    def __len__(self) -> int:
        return len(self._paths)

    def __iter__(self) -> Iterator[str]:
        return (path or "/" for path in self._paths)

    def _longest(self, key: str) -> tuple[int, Handler] | None:
        if self._trie is not None:
            found = self._trie.longest_prefix_item(key, None)
            return None if found is None else found[1]
        parts = key.split("/", self._depth + 1)
        for count in range(min(self._depth, len(parts) - 1), 0, -1):
            value = self._dict.get("/".join(parts[: count + 1]) + "/")
            if value is not None:
                return value
        return None

    def find(self, path: str) -> tuple[Handler | None, str | None]:
        """The handler of an escaped path, and what stands behind its route, decoded; None for
        nothing. Raises ValueError if that is not UTF-8 or has a NUL."""
        if path == "/":
            return self._root, None
        key = _escaped_key(path)
        found = self._longest(key if key.endswith("/") else key + "/")
        if found is None:
            return None, None
        count, handler = found
        parts = path.split("/", count + 1)
        rest = parts[count + 1] if len(parts) > count + 1 else ""
        return handler, decoded(rest) if rest else None


def routed(cls: type) -> dict[str, Handler]:
    """The handlers of a class by path: of its methods, and of its bases' that it has not replaced.

    A method that replaces a handler without ``@route`` answers the same paths. Raises ValueError
    if two methods want one path, TypeError for what cannot be a handler.
    """
    found: dict[str, Handler] = {}
    names: dict[str, str] = {}
    for name in dir(cls):
        mark = None
        for base in cls.__mro__:
            if name in vars(base):
                mark = getattr(vars(base)[name], "parallel_route", None)
                if mark is not None:
                    break
        function = inspect.getattr_static(cls, name)
        if mark is None or function is None:
            continue
        is_plain = inspect.isfunction(function)
        handler = Handler(
            function if is_plain else getattr(cls, name), cls if is_plain else None, mark[1]
        )
        for path in mark[0]:
            key = checked_path(path)
            if key in found:
                raise ValueError(f"{cls.__qualname__}: {names[key]} and {name} both want {path}")
            found[key], names[key] = handler, name
    return found


def overloads(cls: type) -> dict[str, Handler]:
    """Methods such as ``get_x(self, request)``, by name, which PyParallel had before `route`.

    Only those that take ``request``, called so, and can do without anything else: what just has
    such a name is not served.
    """
    found = {}
    for name in dir(cls):
        command = name.partition("_")[0]
        function = inspect.getattr_static(cls, name)
        if command not in _OVERLOADED or not inspect.isfunction(function):
            continue
        if hasattr(function, "parallel_route") or inspect.iscoroutinefunction(function):
            continue
        parameters = list(inspect.signature(function).parameters.values())[1:]
        if parameters and parameters[0].name == "request" and parameters[0].kind in _POSITIONAL:
            handler = Handler(function, cls, (command.upper(),))
            if not handler.required:
                found[name] = handler
    return found


def overload_name(command: str, path: str) -> str:
    """The name of the method among `overloads` for an escaped path."""
    command = "get" if command == "HEAD" else command.lower()
    return command + path.removesuffix("/").replace("/", "_")


def _entering(table: RouteTable) -> Callable[..., Any]:
    def enter(function: Function) -> Function:
        for path in function.parallel_route[0]:  # type: ignore[attr-defined]
            table[path] = function
        return function

    def decorator(*paths: Any, **options: Any) -> Any:
        made = route(*paths, **options)
        if len(paths) == 1 and not isinstance(paths[0], str):
            return enter(made)
        return lambda function: enter(made(function))

    return decorator


class RouteTable(dict[str, Callable[..., Any]]):
    """Functions by path, as a decorator of `router` has gathered them."""


@overload
def make_routes() -> RouteTable: ...


@overload
def make_routes(target: Any) -> Routes: ...


def make_routes(target: Any = None) -> Routes | RouteTable:
    """Without an argument, an empty table for `router` to make a decorator of::

        routes = make_routes()
        route = router(routes)

        class Server(HttpServer):
            routes = routes

            @route
            def hello(self, request): ...

    Else the routes of a class or an instance with ``@route`` methods, or of ``{path: function}``,
    in which `router` finds. A function of a dict is called with the request first. Raises
    ValueError or TypeError, see `routed`.
    """
    if target is None:
        return RouteTable()
    if isinstance(target, Mapping):
        return Routes({checked_path(path): Handler(f, None) for path, f in target.items()})
    if isinstance(target, type):
        return Routes(routed(target))
    handlers = {}
    for path, handler in routed(type(target)).items():
        if handler.owner is not None:
            bound = handler.function.__get__(target)
            handler = Handler(bound, None, handler.methods)
        handlers[path] = handler
    return Routes(handlers)


@overload
def router(routes: RouteTable) -> Callable[..., Any]: ...


@overload
def router(routes: Routes, path: str) -> tuple[Callable[..., Any] | None, str | None]: ...


def router(routes: Any, path: str | None = None) -> Any:
    """Of a table alone: `route` as a decorator that enters what it decorates there, too.

    Of routes and a path as it is sent, escaped: (function, rest), or (None, None) if there is no
    route. Rest is what stands behind the route, decoded, None if nothing does. Raises ValueError if
    it is not UTF-8 or has a NUL.
    """
    if path is None:
        return _entering(routes)
    handler, rest = routes.find(path)
    return None if handler is None else handler.function, rest
