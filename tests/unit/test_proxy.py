"""Forwarded headers: believed from trusted peers, removed from others."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from ppserver.errors import ConfigError
from ppserver.proxy import ProxyHeadersASGI, ProxyHeadersWSGI, TrustedProxies

TRUSTED = TrustedProxies(("127.0.0.1", "10.0.0.0/8", "fd00::/8"))


@pytest.mark.parametrize(
    ("host", "inside"),
    [
        ("127.0.0.1", True),
        ("10.9.8.7", True),
        ("11.0.0.1", False),
        ("fd00::1", True),
        ("fe80::1", False),
        ("::ffff:10.0.0.1", True),
        ("", False),
        (None, False),
        ("localhost", False),
    ],
)
def test_membership(host: str | None, inside: bool) -> None:
    assert (host in TRUSTED) is inside


def test_unix_and_everybody() -> None:
    assert None in TrustedProxies(("unix",))
    assert "1.2.3.4" not in TrustedProxies(("unix",))
    assert None in TrustedProxies(("*",))
    with pytest.raises(ConfigError):
        TrustedProxies(("10.0.0.1/8",))


@pytest.mark.parametrize(
    ("value", "client"),
    [
        ("1.2.3.4", ("1.2.3.4", 0)),
        ("1.2.3.4:80", ("1.2.3.4", 80)),
        ("[2001:db8::1]:443", ("2001:db8::1", 443)),
        ("2001:db8::1", ("2001:db8::1", 0)),
        ("6.6.6.6, 1.2.3.4, 10.0.0.1", ("1.2.3.4", 0)),
        ("10.0.0.2, 10.0.0.1", ("10.0.0.2", 0)),
        ("1.2.3.4, unknown, 10.0.0.1", ("10.0.0.1", 0)),
        ("unknown", None),
        ("", None),
        ("1.2.3.4:99999", None),
        ("1.2.3.4:x", None),
        ("[::1", None),
    ],
)
def test_client(value: str, client: tuple[str, int] | None) -> None:
    assert TRUSTED.client(value) == client


def test_everybody_takes_the_leftmost() -> None:
    assert TrustedProxies(("*",)).client("6.6.6.6, 1.2.3.4") == ("6.6.6.6", 0)


def asgi(client: str | None, *headers: tuple[bytes, bytes], kind: str = "http") -> dict[str, Any]:
    seen: dict[str, Any] = {}

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.update(scope)

    given = list(headers)
    scope = {
        "type": kind,
        "scheme": "http",
        "client": (client, 5) if client else None,
        "headers": given,
    }
    asyncio.run(ProxyHeadersASGI(app, TRUSTED)(scope, None, None))  # type: ignore[arg-type]
    assert given == list(headers)
    return seen


FORWARDED = (
    (b"x-forwarded-for", b"1.2.3.4, 10.0.0.1"),
    (b"x-forwarded-proto", b"https"),
    (b"accept", b"*/*"),
)


def test_asgi_trusted() -> None:
    scope = asgi("10.0.0.2", *FORWARDED)
    assert scope["client"] == ("1.2.3.4", 0)
    assert scope["scheme"] == "https"


def test_asgi_untrusted_headers_are_removed() -> None:
    scope = asgi("9.9.9.9", *FORWARDED)
    assert scope["client"] == ("9.9.9.9", 5)
    assert scope["scheme"] == "http"
    assert scope["headers"] == [(b"accept", b"*/*")]


def test_asgi_nonsense_is_ignored() -> None:
    scope = asgi("10.0.0.2", (b"x-forwarded-for", b"\xff"), (b"x-forwarded-proto", b"javascript"))
    assert scope["client"] == ("10.0.0.2", 5)
    assert scope["scheme"] == "http"


def test_asgi_several_lines_count_as_one_list() -> None:
    scope = asgi("10.0.0.2", (b"x-forwarded-for", b"1.2.3.4"), (b"x-forwarded-for", b"10.0.0.1"))
    assert scope["client"] == ("1.2.3.4", 0)


def test_asgi_lifespan_passes() -> None:
    assert asgi(None, kind="lifespan")["type"] == "lifespan"


def wsgi(address: str) -> dict[str, Any]:
    seen: dict[str, Any] = {}

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        seen.update(environ)
        return []

    environ = {
        "REMOTE_ADDR": address,
        "REMOTE_PORT": "5",
        "wsgi.url_scheme": "http",
        "HTTP_X_FORWARDED_FOR": "1.2.3.4:6",
        "HTTP_X_FORWARDED_PROTO": "http, HTTPS",
    }
    ProxyHeadersWSGI(app, TRUSTED)(environ, None)  # type: ignore[arg-type]
    return seen


def test_wsgi_trusted() -> None:
    environ = wsgi("127.0.0.1")
    assert environ["REMOTE_ADDR"] == "1.2.3.4"
    assert environ["REMOTE_PORT"] == "6"
    assert environ["wsgi.url_scheme"] == "https"


def test_wsgi_untrusted_headers_are_removed() -> None:
    environ = wsgi("9.9.9.9")
    assert environ["REMOTE_ADDR"] == "9.9.9.9"
    assert environ["wsgi.url_scheme"] == "http"
    assert not [name for name in environ if name.startswith("HTTP_X_FORWARDED")]
