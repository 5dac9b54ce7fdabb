"""Uploads to WSGI applications that are broken off: nobody's error, in whatever framework."""

from __future__ import annotations

import ast
import itertools
from collections.abc import Callable

import pytest
import serving
from rawhttp import Raw

Serve = Callable[..., serving.Server]

SIZE = 3_000_000
KINDS = ["django/files", "django/body", "flask/files", "flask/body", "bare"]
BORDER = b"--border\r\n"
PART = BORDER + b'Content-Disposition: form-data; name="f"; filename="f.bin"\r\n\r\n'


def upload(kind: str) -> tuple[list[str], bytes]:
    if kind.endswith("files"):
        body = PART + b"x" * SIZE + b"\r\n--border--\r\n"
        return ["Content-Type: multipart/form-data; boundary=border"], body
    return ["Content-Type: application/octet-stream"], b"x" * SIZE


def state(server: serving.Server) -> dict[str, int]:
    found: dict[str, int] = ast.literal_eval(serving.get(f"{server.url}/state").text)
    return found


def broken_off(server: serving.Server, kind: str, how: str) -> None:
    headers, body = upload(kind)
    with Raw(server) as raw:
        raw.request(f"/{kind}", *headers, f"Content-Length: {len(body)}", method="POST")
        raw.send(body[:-1000])
        if how == "reset":
            raw.reset()


def whole(server: serving.Server, kind: str) -> str:
    headers, body = upload(kind)
    with Raw(server) as raw:
        raw.request(f"/{kind}", *headers, f"Content-Length: {len(body)}", method="POST")
        raw.send(body)
        return raw.read_response().body.decode()


def serve_uploads(serve: Serve, *args: str) -> serving.Server:
    serving.require("django", "flask", "sentry_sdk")
    return serve("uploads:app", interface="wsgi", args=list(args))


def test_an_upload_that_is_broken_off_is_not_seen(serve: Serve) -> None:
    """No framework hears of it, so none makes an error of it, and Sentry gets no event."""
    server = serve_uploads(serve)
    for kind, how in itertools.product(KINDS, ["reset", "close"]):
        broken_off(server, kind, how)
    for kind in KINDS:
        assert whole(server, kind) == str(SIZE)
    assert state(server) == {"begun": len(KINDS), "ended": len(KINDS)}
    assert [line for line in server.records() if not line.endswith(" 0 failed")] == []


@pytest.mark.wide
def test_without_files_it_is_an_error_of_the_framework_at_most(serve: Serve) -> None:
    """Django logs what it cannot read, whatever a server raises; the server does not."""
    server = serve_uploads(serve, "--spool-size", "0")
    server.allow("UnreadablePostError")
    server.allow("ClientDisconnected")
    # Not the others: an error in the midst of parsing leaves files open for the collector.
    kinds = ["django/body", "flask/body", "bare"]
    for number, (kind, how) in enumerate(itertools.product(kinds, ["reset", "close"]), 1):
        broken_off(server, kind, how)
        serving.wait_until(lambda n=number: state(server)["ended"] == n, what=kind)
    assert "Exception in application" not in server.log
    for kind in KINDS:
        assert whole(server, kind) == str(SIZE)
