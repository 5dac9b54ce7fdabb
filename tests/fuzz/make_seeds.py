"""Writes tests/fuzz/seeds from tests/cases: one seed for each kind of outcome, so few and varied.

PYTHONPATH=tests python tests/fuzz/make_seeds.py
"""

from __future__ import annotations

import hashlib
import pathlib
import re
import struct

import h1dump

SEEDS = pathlib.Path(__file__).resolve().parent / "seeds"
SIZE_MAX = 1500


def write(target: str, data: bytes) -> None:
    folder = SEEDS / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / hashlib.sha1(data).hexdigest()[:12]).write_bytes(data)


def outcome(case: h1dump.Case) -> str:
    """What a case is about: its page, and its events without the bytes that vary."""
    events = re.sub(r"(field|request|body|close) .*", r"\1", case.events or "")
    varied = case.data if case.file in {"chunked", "target"} else b""
    return f"{case.file} {events} {varied!r}"


def main() -> None:
    chosen = {outcome(case): case for case in h1dump.read_cases() if len(case.data) < SIZE_MAX}
    for number, case in enumerate(chosen.values()):
        small = case.limits is not None
        head = case.data.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
        write("head", bytes([200 | small, 200]) + head)
        if case.file in {"fields", "target"}:
            write("scan", head)
        write("conn", struct.pack("<I", number << 1 | small) + case.data)
        if b"chunked" in head:
            write("body", bytes([1, 0, 10 * small, number % 256]) + case.data[len(head) :])
    write("body", b"\x00\x05\x00\x07helloGET")
    write("body", b"\x00\x05\x04\x07hello")
    fields = [(b"content-type", b"text/plain"), (b"content-length", b"5"), (b"date", b"x")]
    for name, value in [*fields, (b"connection", b"close"), (b"x", b"a\r\nb"), (b"", b"")]:
        packed = b"".join(bytes([len(part)]) + part for part in (name, value))
        for flags in (0x24, 0xE0, 0x08, 0x10):
            write("write", bytes([50, flags, 5, 0]) + packed * 2)
            write("write", bytes([51, flags, 5, 3]) + b"\x02OK" + packed)


if __name__ == "__main__":
    main()
