"""Our HTTP/1.1 machine against h11: the same requests, or a disagreement that is written down.

Inputs are the wire cases, heads and bodies that hypothesis makes up, and thousands of requests with
a few bytes changed (seeded). Disagreements are listed in tests/cases/disagreements.md.
"""

from __future__ import annotations

import dataclasses
import random
import re
from collections.abc import Callable

import h1dump
import h11
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytestmark = pytest.mark.skipif(h1dump.compiler() is None, reason="no C compiler for h1_dump")

SEED = 20240607
MUTANTS = 12_000


@dataclasses.dataclass
class Request:
    line: str
    fields: list[tuple[str, str]]
    body: bytes = b""
    length: bool = False  # has a body of declared length or chunks


@dataclasses.dataclass
class Outcome:
    requests: list[Request]  # complete ones
    end: str  # "idle", "closed", "incomplete", "error"
    error: str = ""


# ---- ours: the event log read back ----


def ours(log: str) -> Outcome:
    requests: list[Request] = []
    end, error, current = "idle", "", None
    for line in log.splitlines():
        word, _, rest = line.partition(" ")
        if word == "request":
            current = Request(rest, [])
            end = "incomplete"
        elif word == "field" and current:
            name, _, value = rest.partition(": ")
            current.fields.append((name, value))
        elif word == "body" and current:
            current.body = h1dump.unescape(rest[1:-1])
        elif word in {"next", "close"} and current:
            requests.append(current)
            current = None
            end = "idle" if word == "next" else "closed"
        elif word == "error":
            end, error = "error", rest.split()[0]
        elif word == "incomplete":
            end = "incomplete"
    return Outcome(requests, end, error)


# ---- theirs ----


def escaped(data: bytes) -> str:
    named = {0x0D: "\\r", 0x0A: "\\n", 0x09: "\\t", 0x22: '\\"', 0x5C: "\\\\"}
    return "".join(named.get(c) or (chr(c) if 0x20 <= c < 0x7F else f"\\x{c:02x}") for c in data)


def theirs(data: bytes) -> Outcome:
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    connection.receive_data(data)
    requests: list[Request] = []
    current = None
    try:
        while True:
            event = connection.next_event()
            if isinstance(event, h11.Request):
                version = event.http_version.decode()
                line = f"{escaped(event.method)} {escaped(event.target)} HTTP/{version}"
                current = Request(line, [(escaped(n), escaped(v)) for n, v in event.headers])
            elif isinstance(event, h11.Data) and current:
                current.body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage) and current:
                requests.append(current)
                # 400, so that CONNECT and Upgrade do not switch protocols.
                answer = h11.Response(status_code=400, headers=[("content-length", "0")])
                connection.send(answer)
                connection.send(h11.EndOfMessage())
                current = None
                if connection.our_state is not h11.DONE:
                    return Outcome(requests, "closed")
                connection.start_next_cycle()
            elif event is h11.NEED_DATA:
                left = current is not None or connection.trailing_data[0]
                return Outcome(requests, "incomplete" if left else "idle")
            else:
                return Outcome(requests, "closed")
    except h11.RemoteProtocolError as error:
        return Outcome(requests, "error", str(error))


# ---- what we stand by: (our error, a reason to be found in the bytes) ----


def fields_named(data: bytes, name: bytes) -> list[bytes]:
    return [
        value.strip(b" \t\r") for value in re.findall(rb"(?im)^" + name + rb":[ \t]*([^\n]*)", data)
    ]


def some_host_is_odd(data: bytes) -> bool:
    hosts = fields_named(data, b"host")
    return len(hosts) > 1 or any(
        not re.fullmatch(rb"[A-Za-z0-9._-]+(:\d{1,4})?", host) for host in hosts
    )


def some_target_is_odd(data: bytes) -> bool:
    lines = re.findall(rb"(\S+) (\S+) HTTP/", data)
    return any(
        method == b"CONNECT" or target[:1] != b"/" or b"#" in target for method, target in lines
    )


def some_number_beyond(data: bytes, digits: int) -> bool:
    return re.search(rb"[0-9a-fA-F]{%d}" % digits, data) is not None


Reason = Callable[[bytes], object]
CONTROL = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|\r(?!\n)")
REASONS: dict[str, tuple[set[str], Reason]] = {
    "bare-lf": (
        {"bad_header", "bad_trailer", "bad_request_line", "bad_target", "bad_chunk", "bad_method"},
        re.compile(rb"(?<!\r)\n").search,
    ),
    "obs-fold": ({"bad_header", "bad_trailer"}, re.compile(rb"\n[ \t]").search),
    "control-bytes": ({"bad_header", "bad_trailer", "bad_chunk"}, CONTROL.search),
    "target": ({"bad_target"}, some_target_is_odd),
    "host": ({"bad_host"}, some_host_is_odd),
    "version": ({"bad_version"}, re.compile(rb" HTTP/(?!1\.[01]\r)").search),
    "content-length-repeated": (
        {"bad_content_length"},
        lambda data: len(fields_named(data, b"content-length")) > 1 or b"," in data,
    ),
    "content-length-huge": ({"bad_content_length"}, lambda data: some_number_beyond(data, 19)),
    "coding-and-length": (
        {"bad_transfer_coding"},
        lambda data: (
            fields_named(data, b"content-length") and fields_named(data, b"transfer-encoding")
        ),
    ),
    "coding-on-1.0": ({"bad_transfer_coding"}, re.compile(rb"HTTP/1\.0").search),
    "connection-option": (
        {"bad_header"},
        lambda data: any(
            not re.fullmatch(rb"[-!#$%&'*+.^_`|~\w]*", option.strip(b" \t"))
            for value in fields_named(data, b"connection")
            for option in value.split(b",")
        ),
    ),
    "expect": (
        {"bad_expect"},
        lambda data: any(v.lower() != b"100-continue" for v in fields_named(data, b"expect")),
    ),
    "method-length": ({"bad_method"}, re.compile(rb"[-!#$%&'*+.^_`|~\w]{33}").search),
    "chunk-space": ({"bad_chunk"}, re.compile(rb"\n[0-9a-fA-F]+[ \t]").search),
    "bounds": ({"bad_chunk", "bad_trailer"}, re.compile(rb"[^\r\n]{1025}").search),
    "chunk-digits": (
        {"bad_chunk", "body_too_large"},
        lambda data: some_number_beyond(data, 16),
    ),
}
KEYS = {"empty-lines", "keep-alive-1.0", *REASONS}
met: set[str] = set()


def merged(request: Request) -> list[tuple[str, str]]:
    """h11 writes framing fields its own way; the body tells whether they were understood."""
    framing = {"content-length", "transfer-encoding"}
    return [(name, value) for name, value in request.fields if name not in framing]


def same(a: Request, b: Request) -> bool:
    return a.line == b.line and merged(a) == merged(b) and a.body == b.body


def explain(data: bytes, mine: Outcome, other: Outcome) -> set[str]:
    """The listed disagreements that account for a difference; empty when none does."""
    empty_line = re.search(rb"(\A|\r\n)\r\n", data)
    if other.end == "error" and empty_line and len(mine.requests) > len(other.requests):
        return {"empty-lines"}
    if mine.end == "error":
        return {
            key
            for key, (errors, reason) in REASONS.items()
            if mine.error in errors and reason(data)
        }
    return {"empty-lines"} if other.end == "error" and empty_line else set()


def check(data: bytes, log: str) -> None:
    mine, other = ours(log), theirs(data)
    for a, b in zip(mine.requests, other.requests, strict=False):
        assert same(a, b), f"read differently: {data!r}\n{a}\n{b}"
    fewer = min(len(mine.requests), len(other.requests))
    if other.end == "closed" and len(other.requests) == fewer and fewer > 0:
        last = mine.requests[fewer - 1] if len(mine.requests) >= fewer else None
        if (
            last
            and last.line.endswith("HTTP/1.0")
            and (len(mine.requests) > fewer or mine.end != "closed")
        ):
            met.add("keep-alive-1.0")
            return
    if mine.end == "error" and other.end == "incomplete":
        # h11 looks at a head when it is whole: make it so.
        other = theirs(data + b"\r\n\r\n")
    if len(mine.requests) == len(other.requests) and mine.end == other.end:
        return
    if mine.end == "incomplete" and other.end == "idle" and not data.strip(b"\r\n"):
        return  # empty lines and nothing else
    reasons = explain(data, mine, other)
    assert reasons, f"{data!r}\nours: {mine}\nh11: {other}"
    met.update(reasons)


def check_all(inputs: list[bytes]) -> None:
    for data, log in zip(inputs, h1dump.dump(inputs), strict=True):
        check(data, log)


# ---- inputs ----

NAMES = ["Host", "host", "X-A", "Accept", "User-Agent", "Connection", "Content-Length", "Expect"]
NAMES += ["Transfer-Encoding", "Upgrade", "Cookie", "TE", "Trailer", "x_y", "!#$"]
VALUES = ["", "a", "example.com:80", "close", "keep-alive", "upgrade, close", "5", "0", "chunked"]
VALUES += [
    "100-continue",
    "*/*",
    "a b\tc",
    "Chunked",
    "gzip, chunked",
    "5, 5",
    "-1",
    "\xe9",
    "x,,y",
]
TARGETS = ["/", "/a?b=c", "*", "http://h/p?q", "h:443", "/%41%zz", "//x", "https://[::1]:8/"]
METHODS = ["GET", "POST", "HEAD", "OPTIONS", "CONNECT", "PUT", "get", "BREW"]
VERSIONS = ["HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.0", "HTTP/1.2", "HTTP/2.0", "http/1.1"]
CHUNKS = [
    "5\r\nhello\r\n",
    "1;x=y\r\nz\r\n",
    "A\r\n0123456789\r\n",
    "0\r\n",
    "0\r\nT: v\r\n",
    "\r\n",
]

field = st.tuples(
    st.sampled_from(NAMES),
    st.sampled_from(VALUES)
    | st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF), max_size=12),
).map(lambda pair: f"{pair[0]}: {pair[1]}\r\n")


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    line = [draw(st.sampled_from(choice)) for choice in (METHODS, TARGETS, VERSIONS)]
    fields = ["Host: a\r\n"] * draw(st.integers(0, 8).map(lambda n: min(n, 1)))
    fields += draw(st.lists(field, max_size=4))
    head = " ".join(line) + "\r\n" + "".join(draw(st.permutations(fields))) + "\r\n"
    body = draw(st.just("") | st.just("hello") | st.lists(st.sampled_from(CHUNKS)).map("".join))
    return (head + body).encode("latin-1")


@given(st.lists(requests(), min_size=20, max_size=60))
@settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
@pytest.mark.slow
def test_made_up_requests(inputs: list[bytes]) -> None:
    check_all(inputs)


def test_the_wire_cases() -> None:
    check_all([case.data for case in h1dump.read_cases() if case.limits is None])


@pytest.mark.slow
def test_mutants_and_that_the_list_is_needed() -> None:
    generator = random.Random(SEED)
    print(f"seed {SEED}")
    check_all([h1dump.mutant(generator) for _ in range(MUTANTS)])
    check_all([case.data for case in h1dump.read_cases() if case.limits is None])
    assert met == KEYS, "a listed disagreement was never met"


def test_the_list_is_the_page() -> None:
    page = (h1dump.CASES / "disagreements.md").read_text()
    assert set(re.findall(r"^## (\S+)$", page, re.MULTILINE)) == KEYS
