"""Drives tests/native/h1_dump, the HTTP/1.1 machine behind a command line, and reads tests/cases.

python tests/h1dump.py FILE...      fills in the events of cases that have none
"""

from __future__ import annotations

import dataclasses
import functools
import os
import pathlib
import random
import re
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parent.parent
NATIVE = ROOT / "ppserver/native"
TESTS = ROOT / "tests/native"
CASES = ROOT / "tests/cases"


def environment() -> dict[str, str]:
    """Without what a sanitizer run of the interpreter preloads: it is not meant for compilers."""
    return {k: v for k, v in os.environ.items() if k not in {"LD_PRELOAD", "PYTHONPATH"}}


def layer_sources() -> list[pathlib.Path]:
    return sorted([*NATIVE.glob("base/*.c"), *NATIVE.glob("proto/*.c")])


def build(sources: Iterable[str], target: pathlib.Path, *command: str) -> pathlib.Path:
    """Compiles files of tests/native with base/ and proto/: no build system, no interpreter."""
    arguments = [*command, "-std=gnu11", "-D_GNU_SOURCE", "-DPP_DEBUG=1", "-O1", "-g"]
    arguments += [f"-I{NATIVE}", f"-I{TESTS}", "-o", str(target)]
    arguments += [str(TESTS / name) for name in sources] + [str(path) for path in layer_sources()]
    subprocess.run(arguments, check=True, env=environment())
    return target


@functools.cache
def compiler() -> str | None:
    return next((name for name in ("gcc", "clang", "cc") if shutil.which(name)), None)


@functools.cache
def h1_dump() -> pathlib.Path:
    """The program, with address and undefined-behaviour sanitizers."""
    name = compiler()
    assert name is not None, "no C compiler"
    keep = tempfile.TemporaryDirectory(prefix="h1_dump-")
    h1_dump.folder = keep  # type: ignore[attr-defined]  # removed at exit
    return build(
        ["h1_dump.c", "h1_feed.c"],
        pathlib.Path(keep.name) / "h1_dump",
        name,
        "-fsanitize=address,undefined",
        "-fno-sanitize-recover=all",
    )


def dump(inputs: Sequence[bytes], *options: str, program: Sequence[str] | None = None) -> list[str]:
    """The event log of each input, in one run of the program."""
    batch = b"".join(struct.pack("<I", len(data)) + data for data in inputs)
    command = [*(program or [str(h1_dump())]), "--batch", *options]
    run = subprocess.run(command, input=batch, capture_output=True, env=environment())
    assert run.returncode == 0, run.stderr.decode(errors="replace")
    logs, at = [], 0
    while at < len(run.stdout):
        (length,) = struct.unpack_from("<I", run.stdout, at)
        logs.append(run.stdout[at + 4 : at + 4 + length].decode("ascii"))
        at += 4 + length
    assert len(logs) == len(inputs)
    return logs


def scan_variants() -> list[str]:
    names = ["scalar", "sse42", "avx2", "neon"]
    return [
        name
        for name in names
        if subprocess.run(
            [str(h1_dump()), "--scan", name], input=b"", capture_output=True, env=environment()
        ).returncode
        == 0
    ]


@dataclasses.dataclass(frozen=True)
class Case:
    file: str
    title: str
    data: bytes
    limits: str | None
    events: str | None

    @property
    def options(self) -> tuple[str, ...]:
        return ("--limits", self.limits) if self.limits else ()


BYTE = re.compile(r"\\(?:\{(\d+)\*([^}]*)\}|x([0-9a-f]{2})|(.))|([^\n\\])|\n")
SIMPLE = {"r": b"\r", "n": b"\n", "t": b"\t", "\\": b"\\", '"': b'"'}


def unescape(text: str) -> bytes:
    data, at = bytearray(), 0
    while at < len(text):
        match = BYTE.match(text, at)
        assert match, f"not an input: {text[at : at + 20]!r}"
        count, repeated, code, simple, plain = match.groups()
        if count:
            data += int(count) * unescape(repeated)
        elif code:
            data.append(int(code, 16))
        elif simple:
            data += SIMPLE[simple]
        elif plain:
            data += plain.encode("ascii")
        at = match.end()
    return bytes(data)


BLOCK = re.compile(
    r"^## (?P<title>.+)\n(?P<text>(?:(?!##|```).*\n)*)"
    r"```input(?: limits=(?P<limits>[\d,]+))?\n(?P<input>(?:(?!```).*\n)*)```\n"
    r"(?:```events\n(?P<events>(?:(?!```).*\n)*)```\n)?",
    re.MULTILINE,
)


def case_of(name: str, match: re.Match[str]) -> Case:
    data = unescape(match["input"])
    return Case(name, match["title"], data, match["limits"], match["events"])


def read_cases(folder: pathlib.Path = CASES) -> list[Case]:
    found = []
    for path in sorted(folder.glob("*.md")):
        text = path.read_text()
        cases = [case_of(path.stem, match) for match in BLOCK.finditer(text)]
        assert len(cases) == text.count("```input"), f"{path.name}: a case is not well-formed"
        found += cases
    return found


# Requests with a few bytes changed: what a test throws at a parser by the thousand.

MODELS = [
    b"GET /a?b HTTP/1.1\r\nHost: example.com\r\nAccept: */*\r\nX-Y: a b\tc\r\n\r\n",
    b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET /2 HTTP/1.0\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"5;a=b\r\nhello\r\n1\r\n,\r\n0\r\nTrailer: x\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"PUT http://a/b HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nConnection: close, x\r\n"
    b"Content-Length: 2\r\n\r\nhi",
    b"OPTIONS * HTTP/1.1\r\nHost: [::1]:80\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n",
]
ODD = [
    b"\r",
    b"\n",
    b"\r\n",
    b" ",
    b"\t",
    b":",
    b"\x00",
    b"\x7f",
    b"\x80",
    b"\x0b",
    b";",
    b",",
    b"0",
]
ODD += [b"1", b"a", b"F", b"\x1f", b"#", b"/", b"@", b"%", b"chunked", b"00000000000000000", b"-"]
ODD += [b"Content-Length: 5\r\n", b"Host: b\r\n", b"Transfer-Encoding: chunked\r\n", b"M" * 33]
ODD += [b"HTTP/1.0", b"HTTP/3.0", b"close;x", b"9" * 19]


def mutant(generator: random.Random) -> bytes:
    data = bytearray(generator.choice(MODELS))
    for _ in range(generator.randint(1, 3)):
        at = generator.randrange(len(data))
        width = generator.choice([0, 0, 1, 1, 2, 8])
        data[at : at + width] = generator.choice([b"", *ODD])
    return bytes(data)


def fill_in(path: pathlib.Path) -> None:
    def with_events(match: re.Match[str]) -> str:
        case = case_of(path.stem, match)
        if case.events is not None:
            return match[0]
        (log,) = dump([case.data], "--cuts", "all", *case.options)
        return f"{match[0]}```events\n{log}```\n"

    path.write_text(BLOCK.sub(with_events, path.read_text()))


def _text(escaped: str) -> str:
    return unescape(escaped).decode("latin-1")


def wanted(events: str) -> tuple[list[dict[str, Any]], int | None]:
    """The requests that are complete, and the status of the error behind them."""
    requests: list[dict[str, Any]] = []
    error, seen = None, {}
    for line in events.splitlines():
        word, _, rest = line.partition(" ")
        if word == "request":
            method, _, version = rest.split(" ")
            seen = {"method": _text(method), "version": version[-3:], "fields": [], "body": ""}
        elif word == "target":
            path = re.search(r" path=(.*) query=(.*)$", rest)
            assert path
            # An empty path of absolute-form stands for "/"; of OPTIONS for "*".
            seen["target"] = _text(path[1]) or "/"
            seen["query"] = _text(path[2])
            authority = re.search(r" authority=(\S+)", rest)
            seen["authority"] = authority and authority[1]
        elif word == "field":
            name, _, value = rest.partition(": ")
            seen["fields"].append([_text(name), _text(value)])
        elif word == "body":
            seen["body"] = _text(rest[1:-1])
        elif word in {"next", "close"}:
            requests.append(seen)
        elif word == "error":
            error = int(rest.split()[1])
    return requests, error


if __name__ == "__main__":
    for name in sys.argv[1:]:
        fill_in(pathlib.Path(name))
