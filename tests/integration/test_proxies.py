"""Behind a proxy: forwarded fields are believed from trusted peers and removed from others; the
application and the access line name the same client. And where a root path may stand."""

from __future__ import annotations

import json
import pathlib
import re
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import serving

TRUSTED = "127.0.0.1,10.0.0.0/8,fd00::/8,unix"
PEER = "127.0.0.1"
STRANGER = "127.0.0.2"


def request(path: str, fields: list[tuple[str, str]]) -> bytes:
    lines = [f"GET {path} HTTP/1.1", "Host: x", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in fields]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def connected(server: serving.Server, source: str = PEER) -> socket.socket:
    where = (server.host, server.port)
    return socket.create_connection(where, serving.MUST_SECONDS, source_address=(source, 0))


def ask(
    server: serving.Server, *fields: tuple[str, str], source: str = PEER, path: str = "/"
) -> dict[str, Any]:
    with connected(server, source) as peer:
        peer.sendall(request(path, list(fields)))
        with peer.makefile("rb") as stream:
            head, _, body = stream.read().partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 "), head
    told: dict[str, Any] = json.loads(body)
    return told


@pytest.fixture(scope="module", params=["app", "wsgi"])
def server(serve: Callable[..., serving.Server], request: Any) -> serving.Server:
    args = ("--proxy-headers", "--forwarded-allow-ips", TRUSTED, "--access-log")
    return serve(f"forwarded:{request.param}", loop="asyncio", args=args)


@pytest.mark.parametrize(
    ("value", "client"),
    [
        ("1.2.3.4", ("1.2.3.4", 0)),
        ("1.2.3.4:80", ("1.2.3.4", 80)),
        (" 1.2.3.4\t", ("1.2.3.4", 0)),
        ("[2001:db8::1]:443", ("2001:db8::1", 443)),
        ("[2001:DB8:0::1]", ("2001:db8::1", 0)),
        ("2001:db8::1", ("2001:db8::1", 0)),
        ("fe80::1%eth0", ("fe80::1", 0)),
        ("[fe80::1%eth0.7]:9", ("fe80::1", 9)),
        ("6.6.6.6, 1.2.3.4, 10.0.0.1", ("1.2.3.4", 0)),
        ("6.6.6.6,1.2.3.4,::ffff:10.0.0.1", ("1.2.3.4", 0)),
        ("10.0.0.2, 10.0.0.1", ("10.0.0.2", 0)),
        ("1.2.3.4, unknown, 10.0.0.1", ("10.0.0.1", 0)),
        ("1.2.3.4,, 10.0.0.1", ("10.0.0.1", 0)),
        ("_hidden", None),
        ("unknown", None),
        ("", None),
        (",", None),
        ("1.2.3.4:99999", None),
        ("1.2.3.4:", None),
        ("1.2.3.4:x", None),
        ("1.2.3", None),
        ("01.2.3.4", None),
        ("[::1", None),
        ("[::1]x", None),
        ("fe80::1%", None),
        ("fe80::1%<b>", None),
        ("1.2.3.4%eth0", None),
        ("1" * 200, None),
        (", ".join(["10.0.0.1"] * 64), ("10.0.0.1", 0)),
        (", ".join(["10.0.0.1"] * 65), None),
        ("6.6.6.6" + ", 10.0.0.1" * 64, None),
    ],
)
def test_the_client_that_a_proxy_names(
    server: serving.Server, value: str, client: tuple[str, int] | None
) -> None:
    told = ask(server, ("X-Forwarded-For", value))
    if client is None:
        assert told["client"][0] == PEER
        assert told["client"][1] > 0
    else:
        assert tuple(told["client"]) == client


def test_several_fields_are_one_list(server: serving.Server) -> None:
    told = ask(server, ("X-Forwarded-For", "1.2.3.4"), ("X-Forwarded-For", "10.0.0.1"))
    assert told["client"][0] == "1.2.3.4"
    told = ask(server, ("X-Forwarded-For", "1.2.3.4"), ("X-Forwarded-For", "5.6.7.8"))
    assert told["client"][0] == "5.6.7.8"


@pytest.mark.parametrize(
    ("value", "scheme"),
    [("https", "https"), ("http, HTTPS", "https"), ("wss", "https"), ("https,http", "http")]
    + [("javascript", "http"), ("", "http"), ("https ", "https")],
)
def test_the_scheme_that_a_proxy_names(server: serving.Server, value: str, scheme: str) -> None:
    assert ask(server, ("X-Forwarded-Proto", value))["scheme"] == scheme
    assert ask(server, ("X-Forwarded-Proto", value), source=STRANGER)["scheme"] == "http"


FORWARDED = [
    "Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Port", "X-Forwarded-Prefix",
    "X-Forwarded-Proto", "X-Forwarded-Server", "X-Forwarded-Ssl", "X-Real-Ip",
]  # fmt: skip


def test_fields_of_strangers_are_removed(server: serving.Server) -> None:
    fields = [(name, "1.2.3.4") for name in FORWARDED]
    fields += [(name.replace("-", "_"), "1.2.3.4") for name in FORWARDED if "-" in name]
    fields += [("X-Forwarded_For", "1.2.3.4"), ("Accept", "*/*"), ("X-Real-Ips", "kept")]
    told = ask(server, *fields, source=STRANGER)
    assert told["client"][0] == STRANGER
    assert told["names"] == ["accept", "connection", "host", "x-real-ips"]


def test_fields_of_proxies_stay_but_for_underscores(server: serving.Server) -> None:
    fields = [(name, "1.2.3.4") for name in FORWARDED]
    fields += [(name.replace("-", "_"), "6.6.6.6") for name in FORWARDED if "-" in name]
    told = ask(server, *fields)
    assert told["client"][0] == "1.2.3.4"
    assert told["names"] == sorted(["connection", "host", *map(str.lower, FORWARDED)])


def test_each_request_of_a_connection_has_its_own_client(server: serving.Server) -> None:
    clients = ["1.2.3.4", "5.6.7.8", "2001:db8::7", PEER, "1.2.3.4"]
    with connected(server) as peer:
        for client in clients:
            fields = [("X-Forwarded-For", client)] if client != PEER else []
            peer.sendall(request("/", fields).replace(b"Connection: close\r\n", b""))
        peer.sendall(request("/", []))
        with peer.makefile("rb") as stream:
            found = stream.read()
    assert [json.loads(line)["client"][0] for line in bodies(found)] == [*clients, PEER]


def bodies(stream: bytes) -> Iterator[bytes]:
    for part in stream.split(b"HTTP/1.1 200 ")[1:]:
        yield part.partition(b"\r\n\r\n")[2]


def test_the_access_line_names_the_client(server: serving.Server) -> None:
    told = ask(server, ("X-Forwarded-For", "1.2.3.4:5"), path="/named")
    assert told["client"] == ["1.2.3.4", 5]
    ask(server, ("X-Forwarded-For", "1.2.3.4:5"), path="/strange", source=STRANGER)
    server.wait_for_log(r'1\.2\.3\.4:5 - "GET /named HTTP/1\.1" 200')
    server.wait_for_log(rf'{re.escape(STRANGER)}:\d+ - "GET /strange HTTP/1\.1" 200')


@pytest.mark.parametrize("kind", ["app", "wsgi"])
def test_json_access_line_of_a_unix_peer(
    tmp_path: pathlib.Path, started: list[serving.Server], kind: str
) -> None:
    path = tmp_path / "s"
    args = ("--proxy-headers", "--forwarded-allow-ips", "unix", "--log-format", "json")
    args += ("--bind", f"unix:{path}")
    server = serving.launch(f"forwarded:{kind}", tmp_path, args=args)
    started.append(server)
    server.wait_for_log("running on unix:")
    with socket.socket(socket.AF_UNIX) as peer:
        peer.connect(str(path))
        peer.sendall(request("/", [("X-Forwarded-For", "2001:db8::1")]))
        with peer.makefile("rb") as stream:
            body = stream.read().partition(b"\r\n\r\n")[2]
    assert json.loads(body)["client"] == ["2001:db8::1", 0]
    server.wait_for_log(r'"client": "2001:db8::1:0"')


# ---- root path ----


MODES = [
    ("auto", "/x", "/x"),
    ("auto", "/r/x", "/x"),
    ("auto", "/r", ""),
    ("auto", "/rx", "/rx"),
    ("auto", "/%72/x", "/x"),
    ("stripped", "/x", "/x"),
    ("stripped", "/r/x", "/r/x"),
    ("unstripped", "/r/x", "/x"),
    ("unstripped", "/r", ""),
]


@pytest.mark.parametrize("mode", ["auto", "stripped", "unstripped"])
def test_root_path(serve: Callable[..., serving.Server], mode: str) -> None:
    args = ("--root-path", "/r", "--root-path-mode", mode)
    by_asgi = serve("forwarded:app", loop="asyncio", args=args)
    by_wsgi = serve("forwarded:wsgi", loop="asyncio", args=args)
    for its_mode, path, rest in MODES:
        if its_mode == mode:
            told = ask(by_asgi, path=path)
            assert told["root_path"] == "/r"
            assert told["path"] == "/r" + rest
            raw = path if path.startswith(("/r/", "/%72")) or path == "/r" else "/r" + path
            assert told["raw_path"] == str(("/r" + path if mode == "stripped" else raw).encode())
            told = ask(by_wsgi, path=path)
            assert (told["SCRIPT_NAME"], told["PATH_INFO"]) == ("/r", rest)
