"""Requests and responses as handlers see them, and functions that fill in a response.

Nothing here needs a connection: ``bytes(text_response())`` is a whole answer.
"""

from __future__ import annotations

import html
import http
import json
import os
from collections.abc import Iterable
from typing import Any
from urllib.parse import parse_qsl, unquote_to_bytes

from parallel.http.dates import date_time_string, now_bytes
from parallel.http.headers import Headers, checked_name, checked_value
from parallel.http.ranges import InvalidRangeRequest, RangedRequest
from parallel.http.wire import Message

TEXT = "text/plain; charset=utf-8"
HTML = "text/html; charset=utf-8"
JSON = "application/json"
BYTES = "application/octet-stream"
HELLO = "Hello, World!"

_LEADS = {
    int(status): f"HTTP/1.1 {int(status)} {status.phrase}\r\n".encode("ascii")
    for status in http.HTTPStatus
}
_TYPE_FIELDS = {
    name: f"Content-Type: {name}\r\n".encode("ascii") for name in (TEXT, HTML, JSON, BYTES)
}
_SERVER_AND_DATE = b"Server: ppserver\r\nDate: "
_FRAMING = frozenset(("connection", "content-length", "transfer-encoding"))
_UNSET, _OF_HEADER, _OF_QUERY, _OF_HANDLER = range(4)

Body = bytes | bytearray | memoryview | str


def quote_html(text: str) -> str:
    """Text as HTML shows it, in content and in attributes: ``& < > " '`` as references."""
    return html.escape(text)


def phrase_of(code: int) -> str:
    """The reason phrase of a status code, empty if it has none."""
    try:
        return http.HTTPStatus(code).phrase
    except ValueError:
        return ""


class FilePart:
    """A body that is in a file: ``count`` bytes from position ``first``."""

    __slots__ = ("count", "first", "path")

    def __init__(self, path: str, first: int, count: int) -> None:
        self.path = path
        self.first = first
        self.count = count

    def read(self) -> bytes:
        """For use without a transport. Raises OSError; ValueError if the file has fewer bytes."""
        with open(self.path, "rb") as file:
            file.seek(self.first)
            data = file.read(self.count)
        if len(data) != self.count:
            raise ValueError(f"{os.path.basename(self.path)} has become shorter")
        return data


class Response:
    """What will be sent. A handler sets what differs from an empty ``200 OK``.

    - ``code`` 200 to 599; ``message`` is the reason phrase, the usual one if None.
    - ``content_type``: None means plain text for a str and octets for bytes.
    - ``body``: bytes or str, which is sent as UTF-8. Ignored where there is none (204, 304).
    - ``other_headers``: ``"Name: value"`` or ``(name, value)``. One that the server would set
      (Date, Server, Content-Type, ...) replaces it; ``Connection: close`` ends the connection; of
      fields that frame a message (RFC 9112 section 6) there is no other.
    - ``etag`` with or without quotes; ``last_modified`` as text or seconds since 1970;
      ``content_range`` as text.
    - ``content_length`` in bytes is set when the response is made. Given by hand it counts in
      answers to HEAD without a body only.

    Names and values are checked when the response is made: with a CR, LF or NUL in one of them the
    client gets a 500 (RFC 9110 section 5.5).
    """

    __slots__ = (
        "body",
        "code",
        "content_length",
        "content_range",
        "content_type",
        "etag",
        "file",
        "last_modified",
        "message",
        "other_headers",
    )

    def __init__(self) -> None:
        self.code: int = 200
        self.message: str | None = None
        self.content_type: str | None = None
        self.body: Body = b""
        self.other_headers: list[str | tuple[str, str]] | Headers = []
        self.etag: str | None = None
        self.last_modified: str | float | None = None
        self.content_range: str | None = None
        self.content_length: int | None = None
        self.file: FilePart | None = None

    def to_bytes(self) -> bytes:
        """Head and body, as the answer to a GET on a connection that stays open.

        Raises ValueError or TypeError for what cannot be sent.
        """
        head, body, file, _ = self.parts("GET", True, False)
        return head + (body if file is None else file.read())

    __bytes__ = to_bytes

    def parts(
        self, command: str, keep_alive: bool, old: bool
    ) -> tuple[bytes, bytes, FilePart | None, bool]:
        """(head, body, file, keep_alive): what goes out, for the given method.

        ``old``: the peer speaks HTTP/1.0. Body or file is empty for HEAD. The last says whether
        the connection may go on. Raises ValueError or TypeError for what cannot be sent.
        """
        code, body, file = self.code, self.body, self.file
        lead = _LEADS.get(code) if self.message is None else None
        if lead is None or code < 200:
            lead = self._lead()
        if type(body) is not bytes:
            body = body.encode() if isinstance(body, str) else bytes(body)
        length = len(body) if file is None else file.count
        bodiless = code == 204 or code == 304
        if command == "HEAD" and length == 0 and self.content_length is not None:
            length = self.content_length
        self.content_length = None if bodiless else length
        fields: list[bytes] = []
        given: set[str] = set()
        if self.other_headers:
            keep_alive = self._add_others(fields, given, keep_alive)
        pieces = [lead]
        if given:
            if "server" not in given:
                pieces.append(b"Server: ppserver\r\n")
            if "date" not in given:
                pieces += (b"Date: ", now_bytes(), b"\r\n")
        else:
            pieces += (_SERVER_AND_DATE, now_bytes(), b"\r\n")
        if not bodiless:
            media = self.content_type
            if media is None and length:
                media = TEXT if isinstance(self.body, str) else BYTES
            if media is not None and "content-type" not in given:
                pieces.append(_TYPE_FIELDS.get(media) or _field("Content-Type", media))
            pieces.append(b"Content-Length: %d\r\n" % length)
        self._add_validators(pieces, given)
        pieces += fields
        if not keep_alive:
            pieces.append(b"Connection: close\r\n")
        elif old:
            pieces.append(b"Connection: keep-alive\r\n")
        pieces.append(b"\r\n")
        if bodiless or command == "HEAD":
            body, file = b"", None
        return b"".join(pieces), b"" if file is not None else body, file, keep_alive

    def others(self) -> Iterable[str | tuple[str, str]]:
        """``other_headers``, whatever they are kept in."""
        others = self.other_headers
        return others.items() if isinstance(others, Headers) else others

    def _lead(self) -> bytes:
        if not isinstance(self.code, int) or not 200 <= self.code <= 599:
            raise ValueError(f"not the status of a response: {self.code!r}")
        reason = phrase_of(self.code) if self.message is None else checked_value(self.message)
        return f"HTTP/1.1 {int(self.code)} {reason}\r\n".encode("latin-1")

    def _add_others(self, fields: list[bytes], given: set[str], keep_alive: bool) -> bool:
        for other in self.others():
            if isinstance(other, str):
                name, colon, value = other.partition(":")
                if not colon:
                    raise ValueError(f"not a header field: {other!r}")
            else:
                name, value = other
            lower = name.lower()
            if lower in _FRAMING:
                keep_alive = self._judge_framing(lower, value) and keep_alive
            else:
                fields.append(_field(name, value))
                given.add(lower)
        return keep_alive

    def _judge_framing(self, name: str, value: str) -> bool:
        """A field that the server writes itself: right or refused. False to close."""
        value = value.strip(" \t").lower()
        if name == "connection" and value in ("close", "keep-alive"):
            return value != "close"
        if name == "content-length" and value == str(self.content_length):
            return True
        raise ValueError(f"{name} is the server's to set; the response has {value[:80]!r}")

    def _add_validators(self, pieces: list[bytes], given: set[str]) -> None:
        if self.etag is not None and "etag" not in given:
            etag = self.etag
            pieces.append(_field("ETag", etag if etag.endswith('"') else f'"{etag}"'))
        modified = self.last_modified
        if modified is not None and "last-modified" not in given:
            text = modified if isinstance(modified, str) else date_time_string(modified)
            pieces.append(_field("Last-Modified", text))
        if self.content_range is not None and "content-range" not in given:
            pieces.append(_field("Content-Range", self.content_range))


def _field(name: str, value: str) -> bytes:
    return f"{checked_name(name)}: {checked_value(value)}\r\n".encode("latin-1")


class Request:
    """One request and the response to it.

    ``command`` is the method, ``version`` ``"HTTP/1.1"`` or ``"HTTP/1.0"``. ``raw_path`` is the
    whole request target as sent, ``path`` its path decoded, ``query`` a dict in which the last of
    equal keys wins; ``fragment`` is always empty, since none is ever sent (RFC 9112 section 3.2).
    ``data`` is the body, whole. ``transport`` is None outside of a server. A handler may set
    ``keep_alive`` to False: then the connection ends behind the response.
    """

    __slots__ = (
        "_fields",
        "_headers",
        "_range",
        "_range_source",
        "command",
        "data",
        "fragment",
        "keep_alive",
        "may_keep_alive",
        "path",
        "query",
        "raw_path",
        "response",
        "transport",
        "url_path",
        "version",
    )

    def __init__(self, transport: Any = None, data: bytes = b"") -> None:
        self.transport = transport
        self.data = data
        self.command = "GET"
        self.version = "HTTP/1.1"
        self.raw_path = self.path = self.url_path = "/"  # url_path: the path still escaped
        self.query: dict[str, str] = {}
        self.fragment = ""
        self.keep_alive = self.may_keep_alive = True
        self.response = Response()
        self._fields: Iterable[tuple[bytes, bytes]] = ()
        self._headers: Headers | None = None
        self._range: RangedRequest | None = None
        self._range_source = _UNSET

    @classmethod
    def of_message(cls, transport: Any, message: Message) -> Request:
        """From what came over the wire; path and query are for `decode`."""
        request = cls(transport, message.body)
        request.command = message.method
        request.version = message.version
        request.raw_path = message.target
        request.path = request.url_path = message.path
        request.keep_alive = request.may_keep_alive = message.keep_alive
        request._fields = message.fields
        return request

    def decode(self, path: str, query: str) -> None:
        """Set path and query from their escaped forms.

        Raises ValueError for what is not UTF-8 and for NUL (RFC 3986 section 7.3).
        """
        if "%" in path:
            self.path = decoded(path)
        if query:
            self.query = dict(parse_qsl(query, keep_blank_values=True, errors="strict"))
            if "%00" in query:
                raise ValueError("NUL in a query")

    @property
    def headers(self) -> Headers:
        """The header fields, made when first asked for."""
        if self._headers is None:
            self._headers = Headers.of_request(self._fields)
        return self._headers

    @headers.setter
    def headers(self, headers: Headers) -> None:
        self._headers = headers

    @property
    def range(self) -> RangedRequest | None:
        """The range asked for: what a handler has set, else ``?range=``, else the Range field of a
        GET (RFC 9110 section 14.2). None if there is none, or one that is to be ignored."""
        if self._range_source == _UNSET:
            self._find_range()
        return self._range

    @range.setter  # noqa: A003
    def range(self, value: RangedRequest | None) -> None:
        self._range = value
        self._range_source = _OF_HANDLER

    @property
    def range_is_of_header(self) -> bool:
        """Whether it comes from the Range field, and so depends on If-Range."""
        return self.range is not None and self._range_source == _OF_HEADER

    @property
    def range_is_broken(self) -> bool:
        """Whether ``?range=`` is no range. A broken Range field is ignored instead."""
        return self.range is None and self._range_source == _OF_QUERY

    def _find_range(self) -> None:
        text = self.query.get("range")
        self._range_source = _OF_HEADER if text is None else _OF_QUERY
        if text is None and self.command == "GET":
            text = self.headers.joined("Range")
            if text is not None and "=" not in text:
                return
        if text is not None:
            try:
                self._range = RangedRequest(text)
            except InvalidRangeRequest:
                pass

    def __bytes__(self) -> bytes:
        """The response as it would be sent. Raises ValueError or TypeError if it cannot be."""
        keep_alive = self.keep_alive and self.may_keep_alive
        head, body, file, _ = self.response.parts(
            self.command, keep_alive, self.version == "HTTP/1.0"
        )
        return head + (body if file is None else file.read())


def decoded(path: str) -> str:
    """A path without its escapes. Raises ValueError for what is not UTF-8 and for NUL."""
    text = unquote_to_bytes(path).decode("utf-8")
    if "\0" in text:
        raise ValueError("NUL in a path")
    return text


def _filled(request: Request | None, body: Body, media: str, code: int = 200) -> Request:
    if request is None:
        request = Request()
    response = request.response
    response.code = code
    response.content_type = media
    response.body = body
    return request


def text_response(
    request: Request | None = None, text: str | None = None, code: int = 200
) -> Request:
    """Answer with plain text in UTF-8, ``Hello, World!`` if there is none.

    Without a request, make one: ``bytes(text_response())``.
    """
    return _filled(request, HELLO if text is None else text, TEXT, code)


def html_response(request: Request | None = None, text: str = "", code: int = 200) -> Request:
    """Answer with HTML in UTF-8; `quote_html` is for what comes from elsewhere."""
    return _filled(request, text, HTML, code)


def json_serialization(request: Request | None = None, obj: Any = None) -> Request:
    """Answer with JSON; with ``{"message": "Hello, World!"}`` if there is no object.

    Raises TypeError or ValueError for what JSON cannot say.
    """
    return _filled(request, json.dumps({"message": HELLO} if obj is None else obj), JSON)


def text_serialization(request: Request | None = None, text: str | None = None) -> Request:
    """Answer with plain text, ``Hello, World!`` if there is none."""
    return _filled(request, HELLO if text is None else text, TEXT)
