"""An HTTP/1.1 server in Python, as a protocol class over raw transports.

    from parallel.http.server import HttpServer, route, text_response

    class Server(HttpServer):
        @route
        def hello(self, request, name="World"):
            return text_response(request, f"Hello, {name}!")

    parallel.register(transport=parallel.server("127.0.0.1", 8080), protocol=Server)

It is what PyParallel calls slow: h11 reads the requests. What ``http11 = True`` classes answer, the
native parser reads. Each connection has its own instance, and its callbacks run one at a time.
"""

from __future__ import annotations

import logging
import os
import stat
import time
from typing import Any, ClassVar
from urllib.parse import quote

from parallel.http.dates import date_time_string
from parallel.http.files import (
    guess_type,
    is_below,
    is_missing,
    list_directory,
    send_file,
    translate_path,
    with_slash,
)
from parallel.http.headers import Headers
from parallel.http.messages import (
    HTML,
    TEXT,
    Body,
    Request,
    Response,
    html_response,
    json_serialization,
    phrase_of,
    quote_html,
    text_response,
    text_serialization,
)
from parallel.http.plan import Plan, all_merged, plans_lock
from parallel.http.ranges import InvalidRangeRequest, RangedRequest
from parallel.http.routing import (
    MissingArgumentError,
    Routes,
    make_routes,
    overload_name,
    route,
    router,
)
from parallel.http.wire import Message, Reader, RefusedError
from parallel.system import gmtime

__all__ = [
    "Headers",
    "HttpServer",
    "InvalidRangeRequest",
    "RangedRequest",
    "Request",
    "Response",
    "Routes",
    "date_time_string",
    "gmtime",
    "guess_type",
    "html_response",
    "json_serialization",
    "make_routes",
    "quote_html",
    "route",
    "router",
    "text_response",
    "text_serialization",
    "translate_path",
]

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
PENDING_BYTES_MAX = 1 << 20  # of responses to pipelined requests; then the peer has to read first
PENDING_FILES_MAX = 16
UNREAD_BYTES_MAX = 1 << 16  # received while it does not, beyond one request

_REDIRECTS = (301, 302, 303, 307, 308)
_IN_URL = "%/:?#[]@!$&'()*+,;=~"
_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if code != 10}

_log = logging.getLogger("ppserver.error")


class _Link:
    """One connection: its reader, and what is to be sent and is not with the transport yet."""

    __slots__ = (
        "began",
        "closed",
        "files",
        "guests",
        "out",
        "out_bytes",
        "paused",
        "plan",
        "reader",
    )

    def __init__(self, server: HttpServer) -> None:
        self.plan = server._plan()
        self.reader = Reader(
            server.max_line_size, server.max_head_size, server.max_fields, server.max_body_size
        )
        self.out: list[bytes] = []
        self.out_bytes = 0  # in this turn, as is the number of files
        self.files = 0
        self.paused = False
        self.closed = False
        self.began: float | None = None  # when the first piece of a request came, that lacks more
        self.guests: dict[type, Any] = {}

    def take(self) -> bytes | None:
        """What is to be sent, all of it; None for nothing."""
        out = self.out
        if not out:
            return None
        data = out[0] if len(out) == 1 else b"".join(out)
        out.clear()
        return data

    def full(self) -> bool:
        return self.out_bytes > PENDING_BYTES_MAX or self.files >= PENDING_FILES_MAX


class HttpServer:
    """A protocol class that answers HTTP/1.1 requests with its methods.

    ``@route`` methods answer their paths; so does, as in the first programs for PyParallel, a
    method ``get_x_y(self, request)`` to ``GET /x/y``. The rest goes to ``do_GET``, ``do_POST`` ...;
    ``do_GET`` and ``do_HEAD`` serve the files below ``root`` whose names do not begin with a dot.

    A handler gets the request, changes ``request.response`` by itself or through the functions and
    methods here, and returns the request or nothing; or it returns the body, bytes or str. A body
    has been read whole before the handler runs. What a handler raises becomes a 500, and goes to
    `exception_handler`.

    The limits are in bytes (``max_fields`` is a count): a request line 414, a head or too many
    fields 431, a body 413, a request that takes too long 408; the connection ends behind such an
    answer. Register the class, not an
    instance: an instance is one connection.
    """

    url_scheme: ClassVar[str] = "http"
    root: ClassVar[str | os.PathLike[str] | None] = None  # the current directory when first used
    max_line_size: int = 8192
    max_head_size: int = 32768
    max_fields: int = 100
    max_body_size: int = 1 << 20
    idle_timeout: float = 60  # seconds of silence, between requests and within them
    max_request_time: float = 60  # seconds from the first byte of a request to its last

    # Of a subclass with ``http11 = True``, these methods are not paths: the native parser asks.
    not_routes: ClassVar[frozenset[str]] = frozenset(
        ("merge", "response", "error", "redirect", "sendfile", "do_GET", "do_HEAD")
    )

    _link: _Link | None = None  # no __init__, so that a subclass need not call it
    _epoch: ClassVar[int] = 0  # counts merges into any class

    @classmethod
    def merge(cls, other: type[HttpServer]) -> type[HttpServer]:
        """Answer the routes of another class as well; its own routes win. Gives the class.

        The other's methods get an instance of their own class, one for each connection. It is for
        before the server runs. Raises TypeError for what is no HttpServer class, ValueError for
        the class itself.
        """
        if not (isinstance(other, type) and issubclass(other, HttpServer)):
            raise TypeError(f"merge: expected an HttpServer class, not {other!r}")
        with plans_lock:
            if cls in (other, *all_merged(other)):
                raise ValueError(f"merge: {cls.__qualname__} would be merged into itself")
            cls._merged = (*vars(cls).get("_merged", ()), other)  # type: ignore[attr-defined]
            HttpServer._epoch += 1
        return cls

    @classmethod
    def _plan(cls) -> Plan:
        plan: Plan | None = vars(cls).get("_made_plan")
        if plan is None or plan.epoch != HttpServer._epoch:
            with plans_lock:
                plan = vars(cls).get("_made_plan")
                if plan is None or plan.epoch != HttpServer._epoch:
                    plan = Plan(cls, HttpServer._epoch)
                    cls._made_plan = plan  # type: ignore[attr-defined]
        return plan

    # ---- callbacks of the transport ----

    def connection_made(self, transport: Any, data: Any) -> bytes | None:
        """Raises RuntimeError for a second connection of one instance."""
        if self._link is not None:
            transport.close()
            raise RuntimeError("an HttpServer serves one connection: register the class")
        self._link = _Link(self)
        return None

    def data_received(self, transport: Any, data: bytes) -> bytes | None:
        """Answer what is complete: the responses in order, None if there is none.

        While the peer does not read what was answered, pipelined requests wait.
        """
        link = self._link
        if link is None:
            link = self._link = _Link(self)
        if link.closed:
            return None
        reader = link.reader
        reader.buffer += data
        if link.paused:
            most = self.max_head_size + self.max_body_size + UNREAD_BYTES_MAX
            if len(reader.buffer) > most:
                self._close(transport, link)
            return None
        answers = self._serve(transport, link)
        if link.began is None and reader.is_inside():
            link.began = time.monotonic()
        return answers

    def send_complete(self, transport: Any, send_id: int) -> bytes | None:
        """Go on with requests that waited for the peer to read."""
        link = self._link
        if link is None or not link.paused or link.closed:
            return None
        link.paused = False
        return self._serve(transport, link)

    def connection_closed(self, transport: Any, op: str) -> bytes | None:
        """Forget the connection."""
        self._link = None
        return None

    def exception_handler(self, transport: Any, exc: BaseException) -> bytes | None:
        """Called with what a handler raised, when it is answered by a 500: logs it."""
        _log.error("%s: a handler failed", type(self).__qualname__, exc_info=exc)
        return None

    # ---- what handlers use ----

    def response(
        self,
        request: Request,
        code: int = 200,
        message: str | None = None,
        body: Body = b"",
        content_type: str | None = None,
    ) -> Request:
        """Answer with a status, a reason phrase (the usual one if None) and a body."""
        response = request.response
        response.code = code
        response.message = message
        response.content_type = content_type
        response.body = body
        response.file = None
        return request

    def error(self, request: Request, code: int, message: str | None = None) -> Request:
        """Answer with an error: a page of plain text with the status and the message.

        Nothing else that was set before is sent, except ``other_headers`` and the content range
        that belongs to a 416.
        """
        text = f"{code} {phrase_of(code)}\n"
        if message:
            text += message.translate(_CONTROLS) + "\n"
        response = request.response
        response.etag = response.last_modified = response.content_length = None
        if code != 416:
            response.content_range = None
        return self.response(request, code, None, text, TEXT)

    def redirect(self, request: Request, location: str, code: int = 301) -> Request:
        """Answer with another place, escaped as needed.

        PyParallel's code, 301, may be cached for good; 302 and 307 are for this once. Raises
        ValueError unless it is 301, 302, 303, 307 or 308 (RFC 9110 section 15.4).
        """
        if code not in _REDIRECTS:
            raise ValueError(f"not the code of a redirection: {code!r}")
        location = quote(location, safe=_IN_URL)
        response = request.response
        response.other_headers = [*response.others(), ("Location", location)]
        page = f'<a href="{quote_html(location)}">{phrase_of(code)}</a>\n'
        return self.response(request, code, None, page, HTML)

    def sendfile(self, request: Request, path: str | os.PathLike[str]) -> Request:
        """Answer with a file from the page cache, or with the range of it that is asked for.

        ``path`` is one of the file system, not bound to ``root``. 200 or 206; 304 and 412 as
        conditions want it (RFC 9110 section 13), 416 for a range outside of the file, 400 for a
        broken ``?range=``, 404 if there is no such regular file.
        """
        try:
            code = send_file(request, os.fspath(path))
        except OSError as error:
            if not is_missing(error):
                raise
            code = 404
        except ValueError:  # NUL
            code = 404
        return self.error(request, code) if code else request

    # ---- methods without a route ----

    def do_GET(self, request: Request) -> Request | None:  # noqa: N802  http.server's name
        """A file below ``root``, a directory's ``index.html`` or a listing of it."""
        plan = self._plan()
        root = plan.root
        if self.root is not plan.root_given:
            root = os.path.realpath(os.getcwd() if self.root is None else self.root)
        try:
            path = translate_path(request.url_path, root)
            is_directory = stat.S_ISDIR(os.stat(path).st_mode)
        except ValueError:
            return self.error(request, 404)
        except OSError as error:
            if not is_missing(error):
                raise
            return self.error(request, 404)
        has_slash = request.url_path.endswith("/")
        if not is_directory:
            return self.error(request, 404) if has_slash else self.sendfile(request, path)
        if not has_slash:
            return self.redirect(request, with_slash(request))
        index = os.path.realpath(os.path.join(path, "index.html"))
        if os.path.isfile(index) and is_below(index, root):
            return self.sendfile(request, index)
        try:
            return list_directory(request, path)
        except PermissionError:
            return self.error(request, 404)

    def do_HEAD(self, request: Request) -> Request | None:  # noqa: N802  http.server's name
        """As `do_GET`; the body is not sent."""
        return self.do_GET(request)

    # ---- inside ----

    def _serve(self, transport: Any, link: _Link) -> bytes | None:
        reader = link.reader
        link.out_bytes = link.files = 0
        try:
            while not link.closed:
                message: Message | None = None
                refused = None
                try:
                    message = reader.next()
                    if message is not None:
                        link.began = None
                    elif self._takes_long(link):
                        raise RefusedError(408, "the request takes too long")
                except RefusedError as error:
                    refused = error
                if reader.wants_continue:
                    reader.wants_continue = False
                    link.out.append(CONTINUE)
                if refused is not None:
                    self._refuse(transport, link, refused)
                elif message is None:
                    break
                else:
                    self._answer(transport, link, message)
                    if link.full() and reader.buffer and not link.closed:
                        link.paused = True
                        break
        except BaseException:
            self._close(transport, link)
            raise
        return link.take()

    def _takes_long(self, link: _Link) -> bool:
        """Whether a request that is not complete has been on its way for too long."""
        began = link.began
        return began is not None and time.monotonic() - began > self.max_request_time

    def _close(self, transport: Any, link: _Link) -> None:
        """End the connection behind what is sent; nothing of what is here is read any more."""
        link.closed = True
        link.reader.buffer.clear()
        transport.close()

    def _refuse(self, transport: Any, link: _Link, refused: RefusedError) -> None:
        request = Request(transport)
        request.may_keep_alive = False
        HttpServer.error(self, request, refused.status, refused.reason)
        self._send(link, request)
        self._close(transport, link)

    def _answer(self, transport: Any, link: _Link, message: Message) -> None:
        request = Request.of_message(transport, message)
        try:
            result = self._dispatch(link, request, message)
            if result is not None and result is not request:
                self._take(request, result)
        except InvalidRangeRequest:
            self.error(request, 400, "an invalid range")
        except Exception as error:
            self._failed(request, error)
        try:
            keep_alive = self._send(link, request)
        except Exception as error:
            if isinstance(error, OSError) and is_missing(error):
                request.response = Response()
                HttpServer.error(self, request, 404)
            else:
                self._failed(request, error)
            keep_alive = self._send(link, request)
        if not keep_alive:
            self._close(transport, link)

    def _dispatch(self, link: _Link, request: Request, message: Message) -> Any:
        command, plan = request.command, link.plan
        try:
            request.decode(message.path, message.query)
            handler, rest = plan.routes.find(message.path)
        except ValueError:
            return self.error(request, 400, "the path or the query is not UTF-8, or has a NUL")
        if command == "CONNECT":
            return self.error(request, 501)
        if handler is None and plan.overloads:
            handler = plan.overloads.get(overload_name(command, message.path))
        if handler is None:
            if command in plan.commands:
                return getattr(self, "do_" + command)(request)
            return self.error(request, 501)
        if command not in handler.methods:
            if command not in plan.methods:
                return self.error(request, 501)
            request.response.other_headers = [("Allow", handler.allow)]
            return self.error(request, 405)
        before: tuple[Any, ...] = (request,)
        if handler.owner is not None:
            before = (self._host(link, handler.owner), request)
        try:
            return handler.call(before, rest, request.query)
        except MissingArgumentError as error:
            return self.error(request, 400, f"{error} is missing")

    def _host(self, link: _Link, owner: type) -> Any:
        """The instance that a handler's method belongs to."""
        if isinstance(self, owner):
            return self
        guest = link.guests.get(owner)
        if guest is None:
            guest = link.guests[owner] = owner()
        return guest

    def _take(self, request: Request, result: Any) -> None:
        """A body that a handler returned."""
        if not isinstance(result, (bytes, bytearray, memoryview, str)):
            kind = type(result).__name__
            raise TypeError(f"a handler returns the request, bytes, str or None, not {kind}")
        request.response.body = result
        request.response.file = None

    def _failed(self, request: Request, error: Exception) -> None:
        try:
            self.exception_handler(request.transport, error)
        except Exception as another:
            _log.error("exception_handler failed", exc_info=another)
        request.response = Response()
        HttpServer.error(self, request, 500)

    def _send(self, link: _Link, request: Request) -> bool:
        """Queue the response. False if the connection ends behind it.

        Nothing has been queued if it raises ValueError or TypeError for a response that cannot be
        sent, or OSError for its file.
        """
        keep_alive = request.keep_alive and request.may_keep_alive
        head, body, file, keep_alive = request.response.parts(
            request.command, keep_alive, request.version == "HTTP/1.0"
        )
        out = link.out
        if file is None or file.count == 0:
            out.append(head)
            if body:
                out.append(body)
            link.out_bytes += len(head) + len(body)
        else:
            before = b"".join((*out, head))
            request.transport.sendfile_ranged(before, file.path, None, file.first, file.count)
            out.clear()
            link.files += 1
        return keep_alive
