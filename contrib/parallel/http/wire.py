"""Requests out of a stream of bytes: h11, and before it what h11 lets pass and we do not.

h11 reads heads and bodies. This file cuts the stream into them, and refuses bare line ends, folded
lines, control bytes, doubtful framing, invalid Host and targets (the rules are those of the native
parser, tests/cases). An h11 connection is made for each request: that is cheaper than taking one
through its whole cycle, and lets an HTTP/1.0 connection be kept alive.

What is found does not depend on how the stream was cut: the first byte at which something is
wrong, or has become too much, decides.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Any

try:
    import h11
except ImportError as error:
    raise ImportError("parallel.http needs h11: pip install h11") from error

BLANK_LINES_MAX = 2  # before a request line (RFC 9112 section 2.2)
CHUNK_OVERHEAD_MAX = 65536  # bytes of chunk lines beyond one for each byte of data
TRAILER_BYTES_MAX = 8192
LENGTH_MAX = 2**63 - 1

_PLAIN = bytes(byte for byte in range(256) if byte == 9 or (byte >= 32 and byte != 127))
_FORBIDDEN = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|\r[^\n]|(?<!\r)\n|\r\n[ \t]")
_METHOD = rb"[-!#$%&'*+.^_`|~0-9A-Za-z]{1,32}"
_REQUEST_LINE = re.compile(_METHOD + rb' [!"$-~]+ HTTP/1\.[01]')
_OTHER_VERSION = re.compile(_METHOD + rb' [!"$-~]+(?: HTTP/[0-9]\.[0-9])?')
_PREFACE = b"PRI * HTTP/2.0"  # HTTP/2 with prior knowledge (RFC 9113 section 3.4) is no request
_ABSOLUTE = re.compile(rb"(?i:https?)://([^/?]*)(.*)")
_AUTHORITY = re.compile(
    rb"(?:\[(?P<ipv6>[0-9A-Fa-f:.]+)\]|(?P<name>(?:[-A-Za-z0-9._~!$&'()*+,;=]|%[0-9A-Fa-f]{2})*))"
    rb"(?::(?P<port>[0-9]{0,5}))?"
)
_OPTION = re.compile(rb"[-!#$%&'*+.^_`|~0-9A-Za-z]*")
_TEXT = rb"[^\x00-\x08\x0a-\x1f\x7f]"
_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,16})(?:;" + _TEXT + rb"{0,1023})?\r\n")
_CHUNK_LINE_SO_FAR = re.compile(
    rb"(?:[0-9A-Fa-f]{0,16}|[0-9A-Fa-f]{1,16}(?:;" + _TEXT + rb"{0,1023})?\r?)"
)
_TRAILER_LINE = re.compile(rb"(?:[-!#$%&'*+.^_`|~0-9A-Za-z]+:" + _TEXT + rb"*)?\r\n")
_TRAILER_LINE_SO_FAR = re.compile(_TEXT + rb"*\r?")

_SIZE, _DATA, _DATA_END, _TRAILER = range(4)


class RefusedError(Exception):
    """A request that is answered by a status and the end of the connection."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


class Message:
    """A request as it came.

    ``target`` is the whole request target, ``path`` and ``query`` its parts, still escaped; the
    path is ``*`` for OPTIONS of the server and empty for CONNECT. ``fields`` are (name, value),
    Host being that of an absolute target if there is one (RFC 9112 section 3.2.2).
    """

    __slots__ = ("body", "fields", "keep_alive", "method", "path", "query", "target", "version")

    def __init__(self, method: str, target: str, version: str) -> None:
        self.method = method
        self.target = target
        self.version = version  # "HTTP/1.0" or "HTTP/1.1"
        self.path = ""
        self.query = ""
        self.fields: list[tuple[bytes, bytes]] = []
        self.keep_alive = False
        self.body = b""


def authority_is_valid(value: bytes, *, may_be_empty: bool, needs_port: bool = False) -> bool:
    """``host[:port]`` of RFC 3986 section 3.2.2, without user, zone and future addresses."""
    match = _AUTHORITY.fullmatch(value)
    if match is None:
        return False
    address, name, port = match["ipv6"], match["name"], match["port"]
    if address is not None:
        try:
            ipaddress.IPv6Address(address.decode("ascii"))
        except ValueError:
            return False
    elif not name and not may_be_empty:
        return False
    if needs_port and not port:
        return False
    return not port or int(port) <= 65535


def _content_length(head: bytes) -> int | None:
    """From a head in lower case, since h11 joins equal lengths (RFC 9110 section 8.6)."""
    count = head.count(b"\r\ncontent-length:")
    if count == 0:
        return None
    start = head.index(b"\r\ncontent-length:") + 17
    value = head[start : head.index(b"\r\n", start)].strip(b" \t")
    if count > 1 or not value.isdigit() or len(value) > 19 or int(value) > LENGTH_MAX:
        raise RefusedError(400, "an invalid Content-Length")
    return int(value)


def _options(value: bytes) -> list[bytes]:
    """The options of Connection in lower case (RFC 9110 section 7.6.1)."""
    options = [option.strip(b" \t") for option in value.lower().split(b",")]
    if not all(_OPTION.fullmatch(option) for option in options):
        raise RefusedError(400, "an invalid Connection")
    return options


class Reader:
    """The requests of one connection, in order.

    ``line_max`` bounds a request line (414), ``head_max`` a head with its line (431),
    ``fields_max`` the number of its fields (431), ``body_max`` a body (413); all but the third in
    bytes. After a RefusedError nothing must be asked of it any more.
    """

    def __init__(self, line_max: int, head_max: int, fields_max: int, body_max: int) -> None:
        self.buffer = bytearray()  # received, not yet given to h11
        self.wants_continue = False  # the peer waits for 100 (Continue); whoever sends it clears it
        self._line_max = line_max
        self._head_max = head_max
        self._fields_max = fields_max
        self._body_max = body_max
        self._parser: Any = None
        self._message: Message | None = None  # its head is read, its body is not
        self._start()

    def _start(self) -> None:
        self._message = self._parser = None
        self._blank_lines = 0
        self._scanned = 0  # so many bytes of the head are known to be clean
        self._line_is_known = False

    def is_inside(self) -> bool:
        """Whether a request has begun, and is not here as a whole."""
        return bool(self.buffer) or self._message is not None

    def next(self) -> Message | None:
        """The next request, None if more bytes are needed. Raises RefusedError."""
        if self._message is None:
            length = self._find_head()
            if length == 0:
                return None
            head = bytes(self.buffer[:length])
            del self.buffer[:length]
            self._message = self._read_head(head)
        message = self._message
        if self._chunked:
            if not self._read_chunks():
                return None
            message.body = bytes(self._body)
        elif self._length:
            if len(self.buffer) < self._length:
                return None
            self._give(self._length)
            message.body = bytes(self._body)
        self._start()
        return message

    # ---- the head ----

    def _find_head(self) -> int:
        """The length of a head that is here and clean, 0 if more of it is needed."""
        buffer = self.buffer
        if not buffer:
            return 0
        if self._scanned < 2:  # of a blank line, one byte may have been looked at before
            while self._blank_lines < BLANK_LINES_MAX and buffer.startswith(b"\r\n"):
                del buffer[:2]
                self._blank_lines += 1
                self._scanned = 0
        size = len(buffer)
        if not self._line_is_known:
            most = self._line_max + 2
            end = buffer.find(b"\r\n", max(self._scanned - 1, 0), most)
            self._scan(end + 2 if end >= 0 else min(size, most))
            if end < 0:
                if size >= most:
                    raise RefusedError(414, "the request line is too long")
                return 0
            self._check_line(bytes(buffer[:end]))
            self._line_is_known = True
        end = buffer.find(b"\r\n\r\n", max(self._scanned - 4, 0), self._head_max)
        self._scan(end + 4 if end >= 0 else min(size, self._head_max))
        if end < 0:
            if size >= self._head_max:
                raise RefusedError(431, "the header fields are too large")
            return 0
        return end + 4

    def _scan(self, stop: int) -> None:
        """Look for forbidden bytes up to a position. Line ends are whole and no line is folded."""
        start = max(self._scanned - 2, 0)
        part = self.buffer[start:stop]
        ends = part.translate(None, _PLAIN)
        clean = len(ends) == 2 * part.count(b"\r\n") and not (b"\r\n " in part or b"\r\n\t" in part)
        # A CR at the very end may still become a line end: the expression knows.
        if not clean and _FORBIDDEN.search(self.buffer, start, stop):
            raise RefusedError(400, "a byte that must not be there")
        self._scanned = stop

    @staticmethod
    def _check_line(line: bytes) -> None:
        if not _REQUEST_LINE.fullmatch(line):
            if _OTHER_VERSION.fullmatch(line) and line != _PREFACE:
                raise RefusedError(505, "HTTP/1.0 and HTTP/1.1 are spoken here")
            raise RefusedError(400, "an invalid request line")

    def _read_head(self, head: bytes) -> Message:
        """Have h11 read it; judge what h11 does not."""
        if head.count(b"\r\n") - 2 > self._fields_max:
            raise RefusedError(431, "too many header fields")
        lower = head.lower()
        length = _content_length(lower)
        self._parser = parser = h11.Connection(
            h11.SERVER, max_incomplete_event_size=max(self._head_max, 2 * TRAILER_BYTES_MAX)
        )
        parser.receive_data(head)
        try:
            event = parser.next_event()
        except h11.RemoteProtocolError as error:
            # The text of the error repeats what the peer sent: not for the answer.
            raise RefusedError(400, "an invalid head") from error
        if not isinstance(event, h11.Request):
            raise RefusedError(400, "an invalid head")
        version = "HTTP/" + event.http_version.decode("ascii")
        message = Message(event.method.decode("ascii"), event.target.decode("ascii"), version)
        self._chunked = b"\r\ntransfer-encoding:" in lower
        self._length = length or 0
        self._body = bytearray()
        if self._chunked:
            # RFC 9112 section 6.1: both, or on 1.0, is faulty framing. Other codings h11 refuses.
            if length is not None or version == "HTTP/1.0":
                raise RefusedError(400, "an invalid Transfer-Encoding")
            self._phase, self._left, self._overhead, self._trailer_bytes = _SIZE, 0, 0, 0
        self._read_fields(message, event)
        if self._length > self._body_max:
            raise RefusedError(413, "the content is too large")
        return message

    def _read_fields(self, message: Message, event: Any) -> None:
        host, options, old = b"", [], message.version == "HTTP/1.0"
        expects = unmet = False
        message.fields = event.headers.raw_items()
        for written, value in message.fields:
            name = written.lower()
            if name == b"host":
                host = value
            elif name == b"connection":
                options += _options(value)
            elif name == b"expect" and not old:
                expects = True
                unmet = unmet or value.lower() != b"100-continue"
        self._read_target(message, event.target, host)
        if unmet:
            raise RefusedError(417, "an expectation that cannot be met")
        message.keep_alive = b"close" not in options and (not old or b"keep-alive" in options)
        self.wants_continue = (
            expects and (self._chunked or self._length > 0) and self._length <= self._body_max
        )

    @staticmethod
    def _read_target(message: Message, target: bytes, host: bytes) -> None:
        """One of the four forms (RFC 9112 section 3.2), and a Host that is valid with it."""
        authority, rest, valid = None, message.target, True
        if message.method == "CONNECT":
            valid = authority_is_valid(target, may_be_empty=False, needs_port=True)
            rest = ""
        elif target == b"*":
            valid = message.method == "OPTIONS"
        elif not target.startswith(b"/"):
            match = _ABSOLUTE.fullmatch(target)
            valid = match is not None and authority_is_valid(match[1], may_be_empty=False)
            if match is not None:
                authority, rest = match[1], match[2].decode("ascii")
                if not rest.startswith("/"):
                    rest = ("*" if message.method == "OPTIONS" and not rest else "/") + rest
        if not valid:
            raise RefusedError(400, "an invalid request target")
        may_be_empty = message.version == "HTTP/1.0" or not target.startswith(b"/")
        if not authority_is_valid(host, may_be_empty=may_be_empty):
            raise RefusedError(400, "an invalid Host")
        if authority is not None:
            kept = [field for field in message.fields if field[0].lower() != b"host"]
            message.fields = [(b"Host", authority), *kept]
        message.path, _, message.query = rest.partition("?")

    # ---- the body ----

    def _give(self, count: int) -> bool:
        """Give h11 so many bytes, which have been looked at; true if they end the message."""
        parser = self._parser
        parser.receive_data(bytes(self.buffer[:count]))
        del self.buffer[:count]
        try:
            while isinstance(event := parser.next_event(), h11.Data):
                self._body += event.data
        except h11.RemoteProtocolError as error:
            raise RefusedError(400, "an invalid body") from error
        # Trailers come with the end, and are dropped (RFC 9110 section 6.5.1).
        return isinstance(event, h11.EndOfMessage)

    def _read_chunks(self) -> bool:
        """Give h11 as much of a chunked body as is here and in order; true at its end.

        RFC 9112 section 7.1. Linear in the bytes, whatever the size of the chunks.
        """
        buffer, at, ended = self.buffer, 0, False
        while not ended:
            if self._phase == _SIZE:
                match = _CHUNK_LINE.match(buffer, at)
                if match is None:
                    self._check_rest(_CHUNK_LINE_SO_FAR, at, "an invalid chunk")
                    break
                self._begin_chunk(int(match[1], 16), match.end() - at)
                at = match.end()
            elif self._phase == _DATA:
                step = min(self._left, len(buffer) - at)
                at += step
                self._left -= step
                if self._left:
                    break
                self._phase = _DATA_END
            elif self._phase == _DATA_END:
                end = bytes(buffer[at : at + 2])
                if not b"\r\n".startswith(end):
                    raise RefusedError(400, "an invalid chunk")
                if len(end) < 2:
                    break
                at += 2
                self._phase = _SIZE
            else:
                match = _TRAILER_LINE.match(buffer, at)
                end_at = len(buffer) if match is None else match.end()
                if self._trailer_bytes + end_at - at > TRAILER_BYTES_MAX:
                    raise RefusedError(400, "the trailers are too large")
                if match is None:
                    self._check_rest(_TRAILER_LINE_SO_FAR, at, "an invalid trailer")
                    break
                self._trailer_bytes += end_at - at
                ended = end_at - at == 2
                at = end_at
        return self._give(at) if at else False

    def _check_rest(self, so_far: re.Pattern[bytes], at: int, reason: str) -> None:
        if not so_far.fullmatch(self.buffer, at):
            raise RefusedError(400, reason)

    def _begin_chunk(self, size: int, line_bytes: int) -> None:
        # What h11 has not been given yet is no longer than the buffer, so the sum is kept here.
        self._length += size
        self._overhead += line_bytes - 3
        if self._length > self._body_max:
            raise RefusedError(413, "the content is too large")
        if self._overhead > CHUNK_OVERHEAD_MAX + self._length:
            raise RefusedError(400, "an invalid chunk")
        self._left = size
        self._phase = _DATA if size else _TRAILER
