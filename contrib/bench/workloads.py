"""What is asked of the servers: one `Workload` per row of the report."""

import dataclasses
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

# Of a proxy's requests. ppserver believes them where it runs as `ppserver-proxied`.
FORWARDED_HEADERS = {"X-Forwarded-For": "203.0.113.7", "X-Forwarded-Proto": "https"}

JSON_BODY = json.dumps({"message": "Hello, world!"}).encode()
COMPACT_BODY = json.dumps({"message": "Hello, world!"}, separators=(",", ":")).encode()


@dataclass(frozen=True)
class Workload:
    """One kind of request, how it is sent, and what the answer must be."""

    name: str
    title: str
    app: str  # attribute of bench_apps
    expect: bytes | None  # None: any body, with status 200
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
    needs: str = ""  # what prepare.py makes
    idle: int = 0  # connections that have asked once and say nothing more
    share: float = 0  # of what the best peer takes, at that rate; 0: as much as the server can
    workers: int = 1
    lifespan: bool = False  # the application needs it
    neighbours: int = 0  # processes that compute all the time on the server's cores

    def with_workers(self, workers: int) -> "Workload":
        """The same for so many workers, under a name of its own."""
        if workers == 1:
            return self
        name, title = f"{self.name}@{workers}", f"{self.title}, {workers} workers"
        return dataclasses.replace(self, name=name, title=title, workers=workers)

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


def framework(name: str, title: str, app: str, expect: bytes) -> Workload:
    """One of framework_apps.py."""
    interface = app.partition("_")[0]
    return Workload(
        name, title, f"framework_apps:{app}_app", expect, interface, "/json", default=False
    )


def parallel(name: str, title: str, **more: Any) -> Workload:
    """A program of the parallel API, which only ppserver runs."""
    app = f"programs/{name.partition('-')[0]}.py"
    return Workload(
        name, f"parallel API, {title}", app, HELLO, "parallel", bare=True, default=False, **more
    )


def example(name: str, title: str, path: str) -> Workload:
    """One of the programs in examples/, on the data that prepare.py makes."""
    program = name.partition("-")[0]
    return Workload(
        name, title, f"programs/{program}.py", None, "parallel", path, default=False, needs=program
    )


def tefb(database: str, needs: str) -> list[Workload]:
    """The TEFB suite on one database: over ODBC, and as the ASGI application that peers run, too.

    Its /updates change what the others read, but not how much of it.
    """
    kinds = {
        "db": "/db",
        "queries": "/queries?queries=20",
        "updates": "/updates?queries=5",
        "fortunes": "/fortunes",
    }
    odbc = [
        Workload(
            f"{needs}-{kind}",
            f"TEFB on {database}, {path}",
            "programs/tefb.py",
            None,
            "parallel",
            path,
            default=False,
            needs=needs,
        )
        for kind, path in kinds.items()
    ]
    starlette = [
        Workload(
            f"{needs}-asgi-{kind}",
            f"TEFB on {database}, Starlette, {path}",
            "programs.tefb_site:app",
            None,
            "asgi",
            path,
            default=False,
            needs=needs,
            lifespan=True,
        )
        for kind, path in kinds.items()
    ]
    return odbc + starlette


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
    flask = framework("flask", "Flask JSON", "wsgi_flask", COMPACT_BODY + b"\n")
    return [
        plain("plain", "64 connections"),
        plain("plain-1", "1 connection", 1),
        plain("plain-8", "8 connections", 8),
        plain("plain-512", "512 connections", 512),
        plain("pipeline", "pipelined x16", pipeline=16),
        Workload("json", "ASGI JSON", "json_", JSON_BODY, path="/json", bare=True),
        plain("headers", "14 browser headers", headers=BROWSER_HEADERS),
        plain("proxied", "two forwarded fields", 1, headers=FORWARDED_HEADERS, default=False),
        echo("echo", "1 KB", kilobyte, default=True),
        Workload("big", "ASGI 100 KB response", "big", BIG, path="/big", bare=True),
        Workload("starlette", "Starlette JSON", "starlette", COMPACT_BODY, path="/json"),
        wsgi("wsgi", 64, default=True),
        wsgi("wsgi-8", 8, default=False),
        Workload(
            "wsgi-pipeline",
            "WSGI plaintext, pipelined x16",
            "wsgi",
            HELLO,
            "wsgi",
            pipeline=16,
            bare=True,
            default=False,
        ),
        *(
            plain(f"plain-{n}", f"{n} connections", n, default=False)
            for n in (2, 4, 16, 32, 128, 256, 1024)
        ),
        parallel("fast", "http11 protocol"),
        parallel("fast-8", "http11 protocol, 8 connections", connections=8),
        parallel("slow-8", "HttpServer, 8 connections", connections=8),
        parallel("raw-8", "protocol of bytes, 8 connections", connections=8),
        parallel("fast-pipeline", "http11 protocol, pipelined x16", pipeline=16),
        parallel("slow", "HttpServer"),
        parallel("raw", "protocol of bytes"),
        *tefb("SQLite", "tefb"),
        *tefb("PostgreSQL", "tefb-pg"),
        example("wiki-prefix", "wiki, 20 titles by prefix", "/offsets/The%20?limit=20"),
        example("wiki-page", "wiki, a page", "/wiki/The%20Ban%20Himnor%20of%20Avon"),
        echo("echo100k", "100 KB", kilobyte * 100, default=False),
        Workload(
            "stream", "ASGI 100-chunk stream", "stream", CHUNK * CHUNKS, path="/s", default=False
        ),
        framework("fastapi", "FastAPI JSON", "asgi_fastapi", COMPACT_BODY),
        framework("django", "Django JSON, ASGI", "asgi_django", JSON_BODY),
        framework("django-wsgi", "Django JSON, WSGI", "wsgi_django", JSON_BODY),
        flask,
        dataclasses.replace(
            flask,
            name="flask-neighbour",
            title=f"{flask.title}, another process computes on the same core",
            neighbours=1,
        ),
        framework("starlette-sync", "Starlette, thread pool", "asgi_starlette_sync", COMPACT_BODY),
        framework("yielding", "ASGI, asyncio.sleep(0)", "asgi_yielding", HELLO),
        framework("asking", "ASGI, a round trip by a socket", "asgi_asking", HELLO),
        Workload("wsgi-work", "WSGI, 5 ms of computing", "wsgi_work", HELLO, "wsgi", default=False),
        Workload("wsgi-json", "WSGI JSON", "wsgi_json", JSON_BODY, "wsgi", default=False),
        Workload(
            "wsgi-echo",
            "WSGI echo of a 1 KB POST",
            "wsgi_echo",
            kilobyte,
            "wsgi",
            method="POST",
            headers={"Content-Type": "text/plain"},
            body=kilobyte,
            default=False,
        ),
        Workload(
            "wsgi-stream",
            "WSGI 100-chunk stream",
            "wsgi_stream",
            CHUNK * CHUNKS,
            "wsgi",
            default=False,
        ),
        Workload(
            "wsgi-file",
            "WSGI 100 KB file",
            "wsgi_file",
            BIG,
            "wsgi",
            "/file",
            default=False,
            needs="file",
        ),
        plain("paced", "64 connections at a rate", share=0.5, default=False),
        plain("paced-512", "512 connections at a rate", 512, share=0.5, default=False),
        plain("idle", "2,000 idle beside 64", idle=2000, default=False),
        plain("close", "a connection a request", headers=closing, closes=True, default=False),
    ]
