"""The wire cases once more, read by h11 and what `parallel.http` has before it.

What a request is, and what is refused with which status, must be as the native parser has it,
however the bytes are cut.
"""

from __future__ import annotations

import random
from typing import Any

import h1dump
import pytest
import serving

pytest.importorskip("h11")

from parallel.http.wire import Message, Reader, RefusedError

pytestmark = pytest.mark.skipif(serving.PEER != "ppserver", reason="a parser of ppserver's")

SEED = 20261127
MUTANTS = 3000
DEFAULTS = (8192, 32768, 100, 1 << 20)
# Chunks of a body that has no limit: what is too large here is not there.
BODY_UNLIMITED = (1 << 63) - 1


def limits_of(case: h1dump.Case) -> tuple[int, int, int, int]:
    if case.limits is None:
        return (*DEFAULTS[:3], BODY_UNLIMITED)
    line, head, fields, body = map(int, case.limits.split(","))
    return line, head, fields, body or BODY_UNLIMITED


def told(message: Message) -> dict[str, Any]:
    """A request as `h1dump.wanted` describes it."""
    fields = [[n.decode("latin-1").lower(), v.decode("latin-1")] for n, v in message.fields]
    return {
        "method": message.method,
        "version": message.version[-3:],
        "target": message.path,
        "query": message.query,
        "fields": fields,
        "body": message.body.decode("latin-1"),
    }


def read(pieces: list[bytes], limits: tuple[int, int, int, int]) -> tuple[list[Any], int | None]:
    """Requests up to one that ends the connection, and the status of a refusal."""
    reader = Reader(*limits)
    requests: list[Any] = []
    for piece in pieces:
        reader.buffer += piece
        try:
            while (message := reader.next()) is not None:
                requests.append(told(message))
                if not message.keep_alive:
                    return requests, None
        except RefusedError as refused:
            return requests, refused.status
    return requests, None


def expected(events: str) -> tuple[list[Any], int | None]:
    requests, error = h1dump.wanted(events)
    for request in requests:
        for field in request["fields"]:
            if field[0] == "transfer-encoding":  # of which h11 knows one, in lower case
                field[1] = field[1].lower()
        authority = request.pop("authority")
        if request["method"] == "CONNECT":
            request["target"] = request["query"] = ""
        elif authority is not None:  # it replaces Host, and comes first
            kept = [field for field in request["fields"] if field[0] != "host"]
            request["fields"] = [["host", authority], *kept]
    return requests, error


def check(data: bytes, cuts: list[list[bytes]], limits: Any, events: str) -> None:
    wanted = expected(events)
    for pieces in cuts:
        found = read(pieces, limits)
        if wanted[1] is not None and found[1] is None:
            # The native parser does not wait for the end of what is wrong already.
            found = read([*pieces, b"\r\n\r\n"], limits)
        if {found[1], wanted[1]} == {400, 417}:
            found = (found[0], wanted[1])  # Which of two mistakes is seen first.
        assert found == wanted, f"{data!r} in {len(pieces)} pieces"


@pytest.mark.parametrize("case", h1dump.read_cases(), ids=lambda case: f"{case.file}: {case.title}")
def test_case(case: h1dump.Case) -> None:
    data = case.data
    assert case.events is not None
    middle = len(data) // 2
    cuts = [[data], [data[:middle], data[middle:]], [data[i : i + 1] for i in range(len(data))]]
    check(data, cuts, limits_of(case), case.events)


def test_mutants() -> None:
    generator = random.Random(SEED)
    print(f"seed {SEED}")
    inputs = [h1dump.mutant(generator) for _ in range(MUTANTS)]
    for data, events in zip(inputs, h1dump.dump(inputs), strict=True):
        cut = generator.randrange(len(data) + 1)
        check(data, [[data], [data[:cut], data[cut:]]], (*DEFAULTS[:3], BODY_UNLIMITED), events)
