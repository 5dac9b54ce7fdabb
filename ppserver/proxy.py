"""Forwarded headers: believe them from trusted proxies, remove them from everybody else.

Wrappers around an application, used with ``proxy_headers``. The client is the last address of
``X-Forwarded-For``, read from the right, that is not itself a trusted proxy; whatever stands
left of it came from the client and proves nothing.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable
from typing import Any

from ppserver.errors import ConfigError
from ppserver.types import ASGIApplication, Receive, Scope, Send

_STRIPPED = frozenset(
    (
        b"forwarded",
        b"x-forwarded-for",
        b"x-forwarded-host",
        b"x-forwarded-port",
        b"x-forwarded-prefix",
        b"x-forwarded-proto",
        b"x-forwarded-server",
        b"x-forwarded-ssl",
        b"x-real-ip",
    )
)
_STRIPPED_ENVIRON = tuple("HTTP_" + n.decode().upper().replace("-", "_") for n in _STRIPPED)
_SCHEMES = {"http": "http", "https": "https", "ws": "http", "wss": "https"}


class TrustedProxies:
    """A set of addresses and networks; ``*`` is everybody, ``unix`` a Unix socket's peer.

    Raises ConfigError for an entry that is none of these.
    """

    def __init__(self, entries: Iterable[str]) -> None:
        self._everybody = False
        self._unix = False
        self._networks: list[ipaddress.IPv4Network | ipaddress.IPv6Network] = []
        for entry in entries:
            if entry == "*":
                self._everybody = True
            elif entry == "unix":
                self._unix = True
            else:
                try:
                    self._networks.append(ipaddress.ip_network(entry))
                except ValueError as error:
                    raise ConfigError(f"forwarded_allow_ips: {error}") from None

    def __contains__(self, host: str | None) -> bool:
        if self._everybody:
            return True
        if not host:
            return self._unix
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            return False
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        return any(address in network for network in self._networks)

    def client(self, forwarded_for: str) -> tuple[str, int] | None:
        """The client an ``X-Forwarded-For`` value names; None if it names none."""
        hops = [hop.strip() for hop in forwarded_for.split(",")]
        found = None
        for hop in reversed(hops):
            address = _split_port(hop)
            if address is None:
                break
            found = address
            if address[0] not in self:
                break
        return found


def _split_port(hop: str) -> tuple[str, int] | None:
    """(host, port) of one hop; the port is 0 if it has none, None if it is no address."""
    host, port = hop, "0"
    if hop.startswith("["):
        host, bracket, rest = hop[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            return None
        port = rest[1:] or "0"
    elif hop.count(":") == 1:
        host, _, port = hop.partition(":")
    try:
        number = int(port) if port.isascii() and port.isdigit() and len(port) <= 5 else -1
        if not 0 <= number <= 65535:
            return None
        return str(ipaddress.ip_address(host)), number
    except ValueError:
        return None


class ProxyHeadersASGI:
    """Wraps an ASGI application; sets ``client`` and ``scheme`` of its scopes."""

    def __init__(self, app: ASGIApplication, trusted: TrustedProxies) -> None:
        self._app = app
        self._trusted = trusted

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            client = scope.get("client")
            if (client[0] if client else None) in self._trusted:
                self._believe(scope)
            else:
                scope["headers"] = [pair for pair in scope["headers"] if pair[0] not in _STRIPPED]
        await self._app(scope, receive, send)

    def _believe(self, scope: Scope) -> None:
        proto, hops = b"", []
        for name, value in scope["headers"]:
            if name == b"x-forwarded-proto":
                proto = value
            elif name == b"x-forwarded-for":
                hops.append(value)
        scheme = _SCHEMES.get(_last(proto.decode("latin-1")))
        if scheme is not None:
            web_socket = {"http": "ws", "https": "wss"}
            scope["scheme"] = web_socket[scheme] if scope["type"] == "websocket" else scheme
        if hops:
            found = self._trusted.client(b",".join(hops).decode("latin-1"))
            if found is not None:
                scope["client"] = found


class ProxyHeadersWSGI:
    """Wraps a WSGI application; sets REMOTE_ADDR, REMOTE_PORT and wsgi.url_scheme."""

    def __init__(self, app: Callable[..., Any], trusted: TrustedProxies) -> None:
        self._app = app
        self._trusted = trusted

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        if environ.get("REMOTE_ADDR") in self._trusted:
            scheme = _SCHEMES.get(_last(environ.get("HTTP_X_FORWARDED_PROTO", "")))
            if scheme is not None:
                environ["wsgi.url_scheme"] = scheme
            hops = environ.get("HTTP_X_FORWARDED_FOR")
            found = self._trusted.client(hops) if hops else None
            if found is not None:
                environ["REMOTE_ADDR"] = found[0]
                environ["REMOTE_PORT"] = str(found[1])
        else:
            for name in _STRIPPED_ENVIRON:
                environ.pop(name, None)
        return self._app(environ, start_response)


def _last(value: str) -> str:
    return value.rpartition(",")[2].strip().lower()
