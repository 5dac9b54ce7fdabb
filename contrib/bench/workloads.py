"""What is asked of the servers: one `Workload` per row of the report."""

import json
from dataclasses import dataclass, field
from typing import Any

from .bench_apps import BIG, CHUNK, CHUNKS, HELLO

BROWSER_HEADERS = {
    "User-Agent": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    "Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
    "Accept-Language": "en-GB,en;q=0.7,de;q=0.3",
    "Accept-Encoding": "gzip, deflate, br, zstd",
    "Referer": "https://www.example.org/products/index?sort=price&page=3",
    "DNT": "1",
    "Cookie": "session=7f1c2a9be04d4f0b9a1e; theme=dark; seen=2026-01-11; basket=17-4-99",
    "Upgrade-Insecure-Requests": "1",
    "Sec-Fetch-Dest": "document",
    "Sec-Fetch-Mode": "navigate",
    "Sec-Fetch-Site": "same-origin",
    "Sec-Fetch-User": "?1",
    "Priority": "u=0, i",
}  # and Host makes fourteen

JSON_BODY = json.dumps({"message": "Hello, world!"}).encode()
STARLETTE_BODY = json.dumps({"message": "Hello, world!"}, separators=(",", ":")).encode()


@dataclass(frozen=True)
class Workload:
    """One kind of request, how it is sent, and what the answer must be."""

    name: str
    title: str
    app: str  # attribute of bench_apps
    expect: bytes
    interface: str = "asgi"
    path: str = "/plain"
    method: str = "GET"
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    connections: int = 64
    pipeline: int = 1
    bare: bool = False  # the C floor knows this request
    default: bool = True
    closes: bool = False  # the client asks for a connection per request

    def request(self, host: str) -> bytes:
        lines = [f"{self.method} {self.path} HTTP/1.1", f"Host: {host}"]
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        if self.body:
            lines.append(f"Content-Length: {len(self.body)}")
        return "\r\n".join([*lines, "", ""]).encode() + self.body


def plain(name: str, title: str, connections: int = 64, **more: Any) -> Workload:
    """A variation on the same ASGI hello world."""
    return Workload(
        name, f"ASGI plaintext, {title}", "plain", HELLO, connections=connections, bare=True, **more
    )


def wsgi(name: str, connections: int, default: bool) -> Workload:
    title = f"WSGI plaintext, {connections} connections"
    return Workload(
        name, title, "wsgi", HELLO, "wsgi", connections=connections, bare=True, default=default
    )


def echo(name: str, title: str, body: bytes, default: bool) -> Workload:
    return Workload(
        name,
        f"ASGI echo of a {title} POST",
        "echo",
        body,
        path="/echo",
        method="POST",
        headers={"Content-Type": "text/plain"},
        body=body,
        default=default,
    )


def catalogue() -> list[Workload]:
    kilobyte = b"abcdefghijklmnop" * 64
    closing = {"Connection": "close"}
    return [
        plain("plain", "64 connections"),
        plain("plain-1", "1 connection", 1),
        plain("plain-8", "8 connections", 8),
        plain("plain-512", "512 connections", 512),
        plain("pipeline", "pipelined x16", pipeline=16),
        Workload("json", "ASGI JSON", "json_", JSON_BODY, path="/json", bare=True),
        plain("headers", "14 browser headers", headers=BROWSER_HEADERS),
        echo("echo", "1 KB", kilobyte, default=True),
        Workload("big", "ASGI 100 KB response", "big", BIG, path="/big", bare=True),
        Workload("starlette", "Starlette JSON", "starlette", STARLETTE_BODY, path="/json"),
        wsgi("wsgi", 64, default=True),
        wsgi("wsgi-8", 8, default=False),
        echo("echo100k", "100 KB", kilobyte * 100, default=False),
        Workload(
            "stream", "ASGI 100-chunk stream", "stream", CHUNK * CHUNKS, path="/s", default=False
        ),
        plain("close", "a connection a request", headers=closing, closes=True, default=False),
    ]
