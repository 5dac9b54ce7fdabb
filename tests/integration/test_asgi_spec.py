"""ASGI 3, HTTP part, as the specification has it; `tests/apps/spec.py` is the application."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import serving
from rawhttp import ClosedError, Raw, Response


@pytest.fixture(scope="module")
def server(serve: Callable[..., Any], variant: dict[str, Any]) -> serving.Server:
    return serve("spec:app", interface="asgi", **variant)


@pytest.fixture
def raw(server: serving.Server) -> Iterator[Raw]:
    with Raw(server) as connection:
        yield connection


BAD = {name: before for name, (before, _) in serving.load_app("spec").BAD.items()}

# What the reference server does not look at, or finds out too late to answer properly.
PEER_ACCEPTS = ("start-without-status", "status-", "header", "length")


def get_scope(raw: Raw, target: str, *headers: str, **options: Any) -> dict[str, Any]:
    answer = raw.ask(target, *headers, **options)
    assert answer.status == 200, answer
    return json.loads(answer.body)


# --- scope --------------------------------------------------------------------------------------


def test_scope_types(raw: Raw) -> None:
    kinds = get_scope(raw, "/scope")["kinds"]
    assert kinds["type"] == "str"
    assert kinds["asgi"] == "dict"
    assert kinds["http_version"] == "str"
    assert kinds["method"] == "str"
    assert kinds["scheme"] == "str"
    assert kinds["path"] == "str"
    assert kinds["raw_path"] == "bytes"
    assert kinds["query_string"] == "bytes"
    assert kinds["root_path"] == "str"
    assert kinds["headers"] in ("list", "tuple")
    assert kinds["client"] in ("list", "tuple")
    assert kinds["server"] in ("list", "tuple")
    assert kinds["state"] == "dict"


def test_scope_keys(raw: Raw) -> None:
    keys = set(get_scope(raw, "/scope")["keys"])
    required = {"type", "asgi", "http_version", "method", "path", "query_string", "headers"}
    expected = required | {"scheme", "raw_path", "root_path", "client", "server", "state"}
    assert expected <= keys
    assert keys <= expected | {"extensions"}


def test_scope_values(raw: Raw, server: serving.Server) -> None:
    scope = get_scope(raw, "/scope")["scope"]
    assert scope["type"] == "str:http"
    assert scope["http_version"] == "str:1.1"
    assert scope["method"] == "str:GET"
    assert scope["scheme"] == "str:http"
    assert scope["root_path"] == "str:"
    assert scope["asgi"]["version"] == "str:3.0"
    assert scope["asgi"]["spec_version"] in ("str:2.3", "str:2.4", "str:2.5")
    assert scope["client"] == [f"str:{raw.socket.getsockname()[0]}", raw.socket.getsockname()[1]]
    assert scope["server"] == [f"str:{server.host}", server.port]


def test_scope_client_of_connections_that_take_turns(server: serving.Server) -> None:
    with Raw(server) as one, Raw(server) as other:
        for raw in (one, other, one, one, other):
            client = get_scope(raw, "/scope")["scope"]["client"]
            assert client[1] == raw.socket.getsockname()[1]


def test_scope_extensions_only_for_what_is_there(raw: Raw) -> None:
    assert get_scope(raw, "/scope")["scope"].get("extensions") in (None, {})


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "PROPFIND"])
def test_scope_method(raw: Raw, method: str) -> None:
    assert get_scope(raw, "/scope", method=method)["scope"]["method"] == f"str:{method}"


@pytest.mark.parametrize(
    ("target", "path", "raw_path", "query"),
    [
        ("/scope", "/scope", "/scope", ""),
        ("/", "/", "/", ""),
        ("/a%20b/%C3%A9?x=%20y", "/a b/é", "/a%20b/%C3%A9", "x=%20y"),
        ("/%E2%82%AC", "/€", "/%E2%82%AC", ""),
        ("/%F0%9F%8E%89", "/🎉", "/%F0%9F%8E%89", ""),
        ("/a%2Fb", "/a/b", "/a%2Fb", ""),
        ("/a+b", "/a+b", "/a+b", ""),
        ("/a?", "/a", "/a", ""),
        ("/a?b?c", "/a", "/a", "b?c"),
        ("/a//b/../c", "/a//b/../c", "/a//b/../c", ""),
        ("/a;b=c,d", "/a;b=c,d", "/a;b=c,d", ""),
        ("/%61%62%63", "/abc", "/%61%62%63", ""),
        ("/x%c3%a9", "/xé", "/x%c3%a9", ""),
        ("/100%25", "/100%", "/100%25", ""),
        ("/" + "a" * 3000, "/" + "a" * 3000, "/" + "a" * 3000, ""),
        ("/q?" + "b" * 3000, "/q", "/q", "b" * 3000),
    ],
)
def test_scope_path(raw: Raw, target: str, path: str, raw_path: str, query: str) -> None:
    scope = get_scope(raw, target)["scope"]
    assert scope["path"] == f"str:{path}"
    assert scope["raw_path"] == f"bytes:{raw_path}"
    assert scope["query_string"] == f"bytes:{query}"


@pytest.mark.parametrize("target", ["/%ff", "/a%C3", "/%C0%AF"])
def test_scope_path_that_is_not_utf8(raw: Raw, target: str) -> None:
    """Replaced or refused; never another encoding, and never a crash."""
    answer = raw.ask(target)
    if answer.status != 400:
        assert answer.status == 200
        assert "\ufffd" in json.loads(answer.body)["scope"]["path"]


def test_scope_absolute_form(raw: Raw) -> None:
    scope = get_scope(raw, "http://test/abs/%41?q=1")["scope"]
    assert scope["path"] == "str:/abs/A"
    assert scope["query_string"] == "bytes:q=1"


@pytest.mark.peer_differs("white space after a value stays there")
def test_scope_headers(raw: Raw) -> None:
    sent = [
        "X-First: 1",
        "Accept: a",
        "accept: b",
        "X-MiXeD-CaSe: Value Kept",
        "X-Empty:",
        "X-Spaces:  \t inner  space \t ",
        "X-Latin: caf\xe9",
        "X-Last: :;=,\"'",
        "Cookie: a=1",
        "Cookie: b=2",
    ]
    headers = get_scope(raw, "/scope", *sent)["scope"]["headers"]
    assert headers == [
        ["bytes:host", "bytes:test"],
        ["bytes:x-first", "bytes:1"],
        ["bytes:accept", "bytes:a"],
        ["bytes:accept", "bytes:b"],
        ["bytes:x-mixed-case", "bytes:Value Kept"],
        ["bytes:x-empty", "bytes:"],
        ["bytes:x-spaces", "bytes:inner  space"],
        ["bytes:x-latin", "bytes:caf\xe9"],
        ["bytes:x-last", "bytes::;=,\"'"],
        ["bytes:cookie", "bytes:a=1"],
        ["bytes:cookie", "bytes:b=2"],
    ]


def test_scope_is_new_for_every_request(raw: Raw) -> None:
    first = get_scope(raw, "/one?1", "X-Which: first", "X-Same: s")["scope"]
    second = get_scope(raw, "/two", "X-Which: second", "X-Same: s")["scope"]
    assert first["path"] == "str:/one"
    assert second["path"] == "str:/two"
    assert second["query_string"] == "bytes:"
    assert ["bytes:x-which", "bytes:second"] in second["headers"]
    assert ["bytes:x-same", "bytes:s"] in second["headers"]
    assert len(second["headers"]) == 3


def test_scope_of_many_headers(raw: Raw) -> None:
    sent = [f"X-Header-{number}: value {number}" for number in range(60)]
    headers = get_scope(raw, "/scope", *sent)["scope"]["headers"]
    assert len(headers) == 61
    assert headers[-1] == ["bytes:x-header-59", "bytes:value 59"]


def test_scope_http_10(server: serving.Server) -> None:
    with Raw(server) as raw:
        raw.send(b"GET /scope HTTP/1.0\r\n\r\n")
        answer = raw.read_response()
        assert json.loads(answer.body)["scope"]["http_version"] == "str:1.0"
        assert raw.is_closed()


@pytest.mark.peer_differs("1.0 connections are closed there")
def test_http_10_keep_alive(raw: Raw) -> None:
    for _ in range(2):
        raw.send(b"GET /scope HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        answer = raw.read_response()
        assert answer.status == 200
        assert (answer.get("connection") or "").lower() == "keep-alive"


@pytest.mark.peer_differs("1.0 clients get chunks there")
def test_http_10_stream_ends_with_the_connection(raw: Raw) -> None:
    raw.send(b"GET /stream HTTP/1.0\r\n\r\n")
    answer = raw.read_response()
    assert answer.get("transfer-encoding") is None
    assert answer.body == b"part 0;part 1;part 2;"


def test_state(raw: Raw) -> None:
    first = json.loads(raw.ask("/state").body)
    assert first["name"] == "from the lifespan"
    assert "own" not in first
    second = json.loads(raw.ask("/state").body)
    assert "own" not in second, "a request wrote into the state of all"
    assert len(second["shared"]) == len(first["shared"]) + 1, "what is in the state is shared"


def test_root_path(serve: Callable[..., Any], loop: str) -> None:
    server = serve("spec:app", loop=loop, args=("--root-path", "/mount"))
    with Raw(server) as raw:
        scope = get_scope(raw, "/scope%20x?q")["scope"]
    assert scope["root_path"] == "str:/mount"
    assert scope["path"] == "str:/mount/scope x"
    assert scope["raw_path"] == "bytes:/mount/scope%20x"


# --- bodies in ------------------------------------------------------------------------------------


def test_body_of_a_get(raw: Raw) -> None:
    assert json.loads(raw.ask("/messages").body) == [
        {"type": "http.request", "body": 0, "more_body": False}
    ]


def test_body_in_one_message(raw: Raw) -> None:
    assert json.loads(raw.ask("/messages", method="POST", body=b"hello").body)[0] == {
        "type": "http.request",
        "body": 5,
        "more_body": False,
    }


@pytest.mark.parametrize("size", [1, 1000, 65536, 1_000_000])
def test_body_by_length(raw: Raw, size: int) -> None:
    data = bytes(range(256)) * (size // 256 + 1)
    assert raw.ask("/echo", method="POST", body=data[:size]).body == data[:size]


def test_body_by_chunks(raw: Raw) -> None:
    parts = [b"one", b"x" * 70000, b"three"]
    raw.request("/echo", "Transfer-Encoding: chunked", method="POST")
    for part in parts:
        raw.send(b"%x\r\n%s\r\n" % (len(part), part))
    raw.send(b"0\r\n\r\n")
    assert raw.read_response().body == b"".join(parts)
    assert raw.ask("/scope").status == 200


def test_body_arrives_while_it_is_sent(raw: Raw) -> None:
    """Every part is answered before the next one is sent."""
    raw.request("/duplex", "Transfer-Encoding: chunked", method="POST")
    for number in range(20):
        raw.send(b"6\r\npart%02d\r\n" % number)
        if number == 0:
            assert raw.read_head().status == 200
        assert raw.read_chunk() == b"part%02d" % number
    raw.send(b"0\r\n\r\n")
    assert raw.read_chunk() == b""
    assert raw.ask("/scope").status == 200


def test_body_left_unread(server: serving.Server) -> None:
    with Raw(server) as raw:
        assert raw.ask("/unread", method="POST", body=b"x" * 10).body == b'"not read"'
    with Raw(server) as raw:
        raw.request("/unread", "Content-Length: 1000000", method="POST")
        assert raw.read_response().body == b'"not read"'


def test_expect_continue_comes_with_the_first_receive(raw: Raw) -> None:
    raw.request("/echo", "Expect: 100-continue", "Content-Length: 5", method="POST")
    assert raw.read_response().status == 100
    raw.send(b"hello")
    assert raw.read_response().body == b"hello"


def test_expect_continue_of_an_unread_body(raw: Raw) -> None:
    raw.request("/unread", "Expect: 100-continue", "Content-Length: 5", method="POST")
    assert raw.read_response().status == 200


def test_request_after_a_body(raw: Raw) -> None:
    for number in range(5):
        data = b"%d" % number * (number + 1)
        assert raw.ask("/echo", method="POST", body=data).body == data


# --- bodies out -----------------------------------------------------------------------------------


def test_stream(raw: Raw) -> None:
    answer = raw.ask("/stream?100")
    assert answer.get("transfer-encoding") == "chunked"
    assert answer.body == b"".join(b"part %d;" % number for number in range(100))
    assert raw.ask("/scope").status == 200


def test_stream_with_length(raw: Raw) -> None:
    answer = raw.ask("/stream-with-length")
    assert answer.get("content-length") == "10"
    assert answer.body == b"0123456789"
    assert raw.ask("/scope").status == 200


def test_stream_leaves_at_once(serve: Callable[..., Any], loop: str) -> None:
    server = serve("spec:app", interface="asgi", loop=loop, contexts=1)
    with Raw(server) as one, Raw(server) as two:
        one.request("/step")
        assert one.read_head().status == 200
        assert one.read_chunk() == b"first"
        assert two.ask("/release?step").status == 200
        assert one.read_chunk() == b"second"
        assert one.read_chunk() == b""


def test_body_of_any_bytes_like_type(raw: Raw) -> None:
    assert raw.ask("/bytes-like").body == b"bytearray memoryview"


def test_defaults_of_messages(raw: Raw) -> None:
    answer = raw.ask("/defaults")
    assert answer.status == 200
    assert answer.body == b""


def test_headers_may_be_any_iterable(raw: Raw) -> None:
    answer = raw.ask("/header-iterables")
    assert [answer.get(f"x-{number}") for number in range(3)] == ["value"] * 3


@pytest.mark.peer_differs("Date is sent twice there")
def test_own_headers(raw: Raw) -> None:
    answer = raw.ask("/own-headers")
    assert answer.all("date") == ["Thu, 01 Jan 1970 00:00:00 GMT"]
    assert answer.all("server") == ["its own"]
    assert answer.all("set-cookie") == ["a=1", "b=2"]
    assert answer.get("x-bytes") == bytes(range(0xA0, 0x100)).decode("latin-1")
    assert answer.get("x-case") == "Kept"
    assert answer.get("x-empty") == ""


def test_date_and_server(raw: Raw) -> None:
    answer = raw.ask("/scope")
    assert re.fullmatch(
        r"(Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT",
        answer.get("date") or "",
    )
    assert answer.get("server")


@pytest.mark.parametrize("status", [200, 201, 202, 206, 301, 400, 404, 418, 451, 500, 503, 599])
def test_status(raw: Raw, status: int) -> None:
    answer = raw.ask(f"/status?{status}")
    assert answer.status == status
    assert answer.body == b"some body"
    assert answer.get("x-kept") == "yes"


@pytest.mark.parametrize("path", ["/empty", "/status"])
@pytest.mark.parametrize("status", [204, 304])
def test_status_without_body(raw: Raw, status: int, path: str) -> None:
    if path == "/status" and serving.PEER == "uvicorn":
        pytest.skip("the reference server sends the body of a 204")
    answer = raw.ask(f"{path}?{status}")
    assert answer.status == status
    assert answer.get("transfer-encoding") is None
    assert answer.get("content-length") in ((None,) if status == 204 else (None, "0", "9"))
    following = raw.ask("/scope")
    assert following.status == 200, "something of the body went out"


@pytest.mark.parametrize("path", ["/scope", "/stream", "/status?404", "/stream-with-length"])
def test_head(raw: Raw, path: str) -> None:
    answer = raw.ask(path, method="HEAD")
    assert answer.status in (200, 404)
    if path in ("/scope", "/stream-with-length"):
        assert int(answer.get("content-length") or 0) >= 10
    following = raw.ask("/scope")
    assert following.status == 200, "something of the body went out"


def test_connection_close_from_the_client(raw: Raw) -> None:
    answer = raw.ask("/scope", "Connection: close")
    assert answer.get("connection") == "close"
    assert raw.is_closed()


def test_connection_close_from_the_application(raw: Raw) -> None:
    answer = raw.ask("/close")
    assert answer.all("connection") == ["close"]
    assert answer.body == b"bye"
    assert raw.is_closed()


@pytest.mark.parametrize("protocol", ["websocket", "h2c", "example/1"])
def test_upgrade_gets_a_plain_answer(raw: Raw, protocol: str) -> None:
    headers = (
        "Connection: Upgrade, HTTP2-Settings",
        f"Upgrade: {protocol}",
        "HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version: 13",
    )
    scope = get_scope(raw, "/scope", *headers)["scope"]
    assert scope["type"] == "str:http"
    assert raw.ask("/scope").status == 200


def test_pipelining_keeps_the_order(raw: Raw) -> None:
    raw.send(b"".join(b"GET /p%d HTTP/1.1\r\nHost: test\r\n\r\n" % n for n in range(20)))
    for number in range(20):
        assert json.loads(raw.read_response().body)["scope"]["path"] == f"str:/p{number}"


def test_pipelining_of_different_kinds(raw: Raw) -> None:
    raw.send(
        b"GET /stream HTTP/1.1\r\nHost: test\r\n\r\n"
        b"POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 3\r\n\r\nabc"
        b"HEAD /scope HTTP/1.1\r\nHost: test\r\n\r\n"
        b"POST /echo HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"2\r\nde\r\n0\r\n\r\n"
        b"GET /raise HTTP/1.1\r\nHost: test\r\n\r\n"
    )
    assert raw.read_response().body.startswith(b"part 0")
    assert raw.read_response().body == b"abc"
    assert raw.read_response(to_head=True).status == 200
    assert raw.read_response().body == b"de"
    assert raw.read_response().status == 500


@pytest.mark.parametrize("kind", ["early", "late"])
def test_head_does_not_wait_for_ever(own_server: serving.Server, kind: str) -> None:
    """As EventSource's onopen."""
    with Raw(own_server) as raw:
        raw.request(f"/head-first?{kind}&{kind}")
        assert raw.read_head().status == 200
        assert serving.get(f"{own_server.url}/open?{kind}").status_code == 200
        assert raw.read_chunk() == b"piece"


def test_error_before_the_head_was_sent_is_a_500(own_server: serving.Server) -> None:
    with Raw(own_server) as raw:
        assert raw.ask("/head-first?fails&x").status == 500


# --- disconnects ----------------------------------------------------------------------------------


@pytest.fixture
def own_server(
    serve: Callable[..., Any], loop: str, request: pytest.FixtureRequest
) -> serving.Server:
    """A server whose records belong to this test alone."""
    return serve("spec:app", loop=loop, interface="asgi", env={"TEST": request.node.name})


@pytest.mark.parametrize("how", ["close", "reset"])
def test_disconnect_is_received(own_server: serving.Server, how: str) -> None:
    raw = Raw(own_server)
    raw.request("/wait-for-disconnect")
    own_server.wait_for_record("waiting")
    raw.reset() if how == "reset" else raw.socket.close()
    own_server.wait_for_record("received http.disconnect")
    own_server.wait_for_record("again http.disconnect")


def test_send_after_disconnect_does_nothing(own_server: serving.Server) -> None:
    raw = Raw(own_server)
    raw.request("/wait-for-disconnect")
    own_server.wait_for_record("waiting")
    raw.reset()
    own_server.wait_for_record("again http.disconnect")
    own_server.wait_for_record("sent nowhere", 2)
    assert not any(line.startswith("send raised") for line in own_server.records())


@pytest.mark.peer_differs("send after a disconnect is silent there for ever")
def test_failure_after_disconnect_is_logged(own_server: serving.Server) -> None:
    """What is raised while the server's own exception is handled, and a stray cancellation."""
    own_server.allow("ClientDisconnected: send\\(\\) after")  # the cause of the first
    for what, error in (("handling", "ExpectedError"), ("cancelled", "CancelledError")):
        with Raw(own_server) as raw:
            raw.request(f"/fails-after-disconnect?{what}")
            own_server.wait_for_record(f"about to fail: {what}")
            raw.reset()
        own_server.wait_for_log(rf"(?s)Traceback.*{error}: .*{serving.EXPECTED}", 60)


@pytest.mark.peer_differs("send after a disconnect is silent there for ever")
@pytest.mark.parametrize(("piece", "quiet"), [(65536, 16), (2_000_000, 1), (0, 16384)])
def test_send_raises_once_a_megabyte_went_nowhere(
    own_server: serving.Server, piece: int, quiet: int
) -> None:
    """So a sender that never listens ends, too."""
    mark = f"deaf-{piece}"
    with Raw(own_server) as raw:
        raw.request(f"/deaf?{piece}&{mark}")
        own_server.wait_for_record(f"{mark} begins")
        raw.reset()
    own_server.wait_for_record(f"{mark}: OSError after {quiet} pieces")


@pytest.mark.peer_differs("send after a disconnect is silent there")
def test_disconnect_ends_a_stream(own_server: serving.Server) -> None:
    raw = Raw(own_server)
    raw.request("/disconnect-while-streaming")
    own_server.wait_for_record("streaming")
    raw.reset()
    own_server.wait_for_record("stream ended by OSError")
    own_server.wait_for_record("then http.disconnect")


def test_disconnect_does_not_cancel(own_server: serving.Server) -> None:
    raw = Raw(own_server)
    raw.request("/not-cancelled")
    own_server.wait_for_record("working")
    raw.socket.close()
    own_server.wait_for_record("work finished")
    assert "cancelled" not in own_server.records()


@pytest.mark.parametrize("size", [1000, 1_000_000])
def test_disconnect_in_the_middle_of_a_body(own_server: serving.Server, size: int) -> None:
    raw = Raw(own_server)
    raw.request("/upload-cut", f"Content-Length: {size}", method="POST")
    raw.send(b"some of it")
    own_server.wait_for_record("upload started")
    raw.socket.close()
    own_server.wait_for_record("upload cut")


def test_receive_after_the_response(own_server: serving.Server) -> None:
    """The request is over: there is nothing left but the disconnect."""
    with Raw(own_server) as raw:
        assert raw.ask("/receive-after-response").status == 200
        own_server.wait_for_record("after the response: http.disconnect http.disconnect")


def test_send_waits_while_nobody_reads(own_server: serving.Server) -> None:
    with Raw(own_server) as raw:
        raw.request("/flow")
        assert raw.read_head().status == 200
        seen = -1
        while (now := len(own_server.records("flow"))) != seen or now == 0:
            seen = now
            serving.wait_until(lambda: True)
            raw.socket.settimeout(0.2)
            with Raw(own_server) as other:  # time passes in the server, too
                for _ in range(20):
                    assert other.ask("/scope").status == 200
        assert seen < 512, "the application sent 32 MB to a client that does not read"
        raw.socket.settimeout(serving.MUST_SECONDS)
        total = 0
        while chunk := raw.read_chunk():
            total += len(chunk)
        assert total == 64 << 20
    own_server.wait_for_record("complete", name="flow")


# --- background work ------------------------------------------------------------------------------


def test_background_work_holds_up_nobody(own_server: serving.Server) -> None:
    with Raw(own_server) as raw, Raw(own_server) as other:
        assert raw.ask("/background?a").body == b'"answered"'
        assert other.ask("/scope").status == 200
        assert raw.ask("/scope").status == 200, "the connection waits for background work"
        assert "background a done" not in own_server.records()
        assert other.ask("/release?a").status == 200
        own_server.wait_for_record("background a done")


def test_background_work_survives_the_connection(own_server: serving.Server) -> None:
    with Raw(own_server) as raw:
        assert raw.ask("/background?b").status == 200
    with Raw(own_server) as other:
        assert other.ask("/release?b").status == 200
    own_server.wait_for_record("background b done")


# --- applications that fail -----------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/raise", "/raise-later", "/raise-base"])
def test_exception_before_the_start(raw: Raw, server: serving.Server, path: str) -> None:
    answer = raw.ask(path)
    assert answer.status == 500
    assert b"expected by the test" not in answer.body, "the client sees the exception"
    server.wait_for_log("expected by the test")


def test_exception_is_logged_with_its_traceback(own_server: serving.Server) -> None:
    with Raw(own_server) as raw:
        raw.ask("/raise-later")
    own_server.wait_for_log("ExpectedError: before the start, after a suspension")
    log = own_server.log
    assert log.count("Traceback (most recent call last)") == 1
    assert "raises_later" in log


def test_server_lives_after_an_exception(server: serving.Server) -> None:
    for _ in range(3):
        with Raw(server) as raw:
            assert raw.ask("/raise").status == 500
        with Raw(server) as raw:
            assert raw.ask("/scope").status == 200


@pytest.mark.parametrize(
    "path", ["/raise-exit", "/raise-exit-later", "/raise-interrupt", "/raise-group"]
)
def test_unusual_exceptions(server: serving.Server, path: str) -> None:
    """A handler cannot end the server."""
    server.allow("^ExceptionGroup: unhandled errors in a TaskGroup")
    with Raw(server) as raw:
        assert raw.ask(path).status == 500
    server.wait_for_log("expected by the test")
    with Raw(server) as raw:
        assert raw.ask("/scope").status == 200


def test_cancelled_error_of_the_application(server: serving.Server) -> None:
    """Raised without a cancellation: an error as any other, and the context goes on."""
    server.allow("CancelledError")
    with Raw(server) as raw:
        try:
            assert raw.ask("/raise-cancelled").status == 500
        except ClosedError:
            pass
    with Raw(server) as raw:
        assert raw.ask("/scope").status == 200


@pytest.mark.parametrize("path", ["/raise-after-start", "/raise-after-part", "/unfinished"])
def test_failure_after_the_start_closes_the_connection(server: serving.Server, path: str) -> None:
    with Raw(server) as raw:
        raw.request(path)
        try:
            answer: Response | None = raw.read_response()
        except ClosedError:
            answer = None
        # A start that has not left yet may still become a 500.
        assert answer is None or answer.status == 500, "the client takes it for complete"
        if answer is not None:
            assert path == "/raise-after-start"
        assert raw.is_closed()
    with Raw(server) as raw:
        assert raw.ask("/scope").status == 200


@pytest.mark.peer_differs("the connection is closed there")
def test_exception_after_the_end(raw: Raw) -> None:
    assert raw.ask("/raise-after-end").body == b'"complete"'
    assert raw.ask("/scope").status == 200


def test_no_response_is_an_error(server: serving.Server) -> None:
    with Raw(server) as raw:
        assert raw.ask("/nothing").status == 500
    with Raw(server) as raw:
        raw.request("/only-start")
        try:
            assert raw.read_response().status == 500
        except ClosedError:
            pass
    with Raw(server) as raw:
        assert raw.ask("/scope").status == 200


@pytest.mark.parametrize("path", ["/too-long", "/too-long-in-parts", "/too-short"])
def test_wrong_content_length(server: serving.Server, path: str) -> None:
    server.allow("(?i)content-length")
    with Raw(server) as raw:
        raw.request(path)
        try:
            answer: Response | None = raw.read_response()
        except ClosedError:
            answer = None
        assert answer is None or answer.status == 500 or answer.body in (b"12345", b"123")
        assert raw.is_closed(), "a connection whose framing is in doubt stays open"
    with Raw(server) as raw:
        assert raw.ask("/scope").status == 200


@pytest.mark.parametrize("path", ["/too-long", "/first-part-too-long"])
@pytest.mark.peer_differs("the head is sent")
def test_a_first_piece_beyond_content_length_is_a_whole_500(
    server: serving.Server, path: str
) -> None:
    server.allow("(?i)content-length")
    with Raw(server) as raw:
        assert raw.ask(path).status == 500
    with Raw(server) as raw:
        assert raw.ask("/scope").status == 200


@pytest.mark.peer_differs("a value is an error there")
def test_value_returned_by_the_application(raw: Raw) -> None:
    assert raw.ask("/returns-value").body == b'"ok"'
    assert raw.ask("/scope").status == 200


@pytest.mark.parametrize("name", BAD)
def test_bad_message_is_refused(own_bad_server: serving.Server, name: str) -> None:
    if serving.PEER == "uvicorn" and name.startswith(PEER_ACCEPTS):
        pytest.skip("the reference server accepts it")
    before = BAD[name]
    with Raw(own_bad_server) as raw:
        answer = raw.ask(f"/bad?{name}")
        assert answer.status == 200
        complete = len(before) == 2 and not before[1]["more_body"]
        if complete:
            assert answer.body == b"ok"
            result = told(own_bad_server, name)
        else:
            result = json.loads(answer.body.removeprefix(b"x"))
        assert result["type"] is not None, "send accepted it"
        assert not result["os_error"], result
        assert result["message"], "an exception without a word"
        assert "evil" not in str(answer.headers)
        # One bad message must not spoil what follows.
        assert raw.ask("/scope").status == 200


def told(server: serving.Server, name: str) -> dict[str, Any]:
    def find() -> dict[str, Any] | None:
        for line in server.records():
            entry = json.loads(line) if line.startswith("{") else {}
            if name in entry:
                return dict(entry[name])
        return None

    return dict(serving.wait_until(find))


@pytest.fixture(scope="module")
def own_bad_server(serve: Callable[..., Any], loop: str) -> serving.Server:
    server = serve("spec:app", interface="asgi", loop=loop, env={"TEST": "bad messages"})
    server.allow(r"^[\w.]*(Error|Exception|AssertionError)\b")
    return server


@pytest.mark.parametrize("name", [name for name, before in BAD.items() if not before])
def test_bad_message_unhandled_is_a_500(own_bad_server: serving.Server, name: str) -> None:
    if serving.PEER == "uvicorn" and name.startswith(PEER_ACCEPTS):
        pytest.skip("the reference server accepts it")
    with Raw(own_bad_server) as raw:
        answer = raw.ask(f"/raise-bad?{name}")
        assert answer.status == 500
        assert answer.get("set-cookie") is None
        assert answer.get("x-name") is None
    with Raw(own_bad_server) as raw:
        assert raw.ask("/scope").status == 200
