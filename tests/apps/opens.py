"""A WSGI application that opens at import what the environment says, and answers through it."""

from __future__ import annotations

import asyncio
import logging.handlers
import multiprocessing
import os
import queue
import sqlite3
import sys
import threading
import wsgiref.util
from collections.abc import Callable
from typing import Any

from support import record

record("import")
POSTGRES = os.environ.get("TEST_POSTGRES", "")
SERVICE = os.environ.get("TEST_SERVICE", "")  # tests/apps/echoing.py
Ask = Callable[[int], Any]


def open_sqlalchemy() -> Ask:
    import sqlalchemy as sa

    globals()["engine"] = engine = sa.create_engine(
        POSTGRES.replace("postgresql:", "postgresql+psycopg:")
    )

    def ask(number: int) -> Any:
        with engine.connect() as connection:
            return connection.scalar(sa.text("select cast(:n as integer)"), {"n": number})

    return ask


def open_async_sqlalchemy() -> Ask:
    import sqlalchemy as sa
    from sqlalchemy.ext.asyncio import create_async_engine

    engine = create_async_engine(POSTGRES.replace("postgresql:", "postgresql+asyncpg:"))

    async def select(number: int) -> Any:
        async with engine.connect() as connection:
            return await connection.scalar(sa.text(f"select {number}"))

    with asyncio.Runner() as first:
        first.run(select(0))
    turn, runner = threading.Lock(), asyncio.Runner()

    def ask(number: int) -> Any:
        with turn:  # Its connections belong to one loop, which is made here.
            return runner.run(select(number)) if number else 0

    return ask


def open_psycopg() -> Ask:
    import psycopg

    globals()["connection"] = connection = psycopg.connect(POSTGRES, autocommit=True)
    return lambda number: connection.execute("select %s::int", (number,)).fetchone()[0]


def open_psycopg_pool() -> Ask:
    import psycopg_pool

    globals()["pool"] = pool = psycopg_pool.ConnectionPool(POSTGRES, min_size=2, open=True)
    pool.wait()

    def ask(number: int) -> Any:
        with pool.connection() as connection:
            row = connection.execute("select %s::int", (number,)).fetchone()
            return row[0]

    return ask


def open_django() -> Ask:
    import django
    from django.conf import settings

    folder = POSTGRES.partition("host=")[2]
    settings.configure(
        DATABASES={
            "default": {
                "ENGINE": "django.db.backends.postgresql",
                "NAME": "postgres",
                "USER": "test",
                "HOST": folder,
            }
        }
    )
    django.setup()
    from django.db import connection

    def ask(number: int) -> Any:
        with connection.cursor() as cursor:
            cursor.execute("select %s::int", [number])
            return cursor.fetchone()[0]

    return ask


def open_redis() -> Ask:
    import redis

    client = redis.Redis(unix_socket_path=os.environ["TEST_REDIS"])

    def ask(number: int) -> Any:
        return int(client.echo(str(number)))

    return ask


def open_sqlite() -> Ask:
    path = os.path.join(os.environ["TEST_APP_DIRECTORY"], "shop.data")
    globals()["db"] = db = sqlite3.connect(path, check_same_thread=False, timeout=60)
    db.execute("create table if not exists t (x)")
    db.commit()
    return lambda number: db.execute("select ?", (number,)).fetchone()[0]


def open_listener() -> Ask:
    """What Litestar does: log lines go through a queue to a thread."""
    lines: queue.Queue[Any] = queue.Queue()
    listener = logging.handlers.QueueListener(lines, logging.StreamHandler(sys.stdout))
    logger = logging.getLogger("shop")
    logger.propagate = False
    logger.addHandler(logging.handlers.QueueHandler(lines))
    listener.start()
    globals()["listener"] = listener

    def ask(number: int) -> Any:
        logger.warning("answered %d", number)
        return number

    return ask


def open_a2wsgi() -> Ask:
    """The work is done by the loop of another thread."""
    import a2wsgi

    async def asgi(scope: Any, receive: Any, send: Any) -> None:
        body = scope["path"].strip("/").encode()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})

    globals()["middleware"] = middleware = a2wsgi.ASGIMiddleware(asgi)

    def ask(number: int) -> Any:
        environ: dict[str, Any] = {"PATH_INFO": f"/{number}"}
        wsgiref.util.setup_testing_defaults(environ)
        return int(b"".join(middleware(environ, lambda status, headers, info=None: None)))

    return ask


def open_requests() -> Ask:
    """What a session keeps alive is urllib3's, as it is botocore's."""
    import requests

    globals()["session"] = session = requests.Session()
    return lambda number: int(session.get(f"{SERVICE}/{number}", timeout=60).text)


def open_httpx() -> Ask:
    import httpx

    globals()["client"] = client = httpx.Client(timeout=60)
    return lambda number: int(client.get(f"{SERVICE}/{number}").text)


def open_psycopg2() -> Ask:
    import psycopg2

    globals()["connection"] = connection = psycopg2.connect(POSTGRES)
    connection.autocommit = True

    def ask(number: int) -> Any:
        with connection.cursor() as cursor:
            cursor.execute("select %s::int", (number,))
            return cursor.fetchone()[0]

    return ask


def open_asyncpg() -> Ask:
    """With the loop that its connections belong to: one that `asyncio.run()` has closed is of no
    use to anybody."""
    import asyncpg

    async def make() -> Any:
        return await asyncpg.create_pool(POSTGRES, min_size=1, max_size=2)

    loop = asyncio.new_event_loop()
    globals()["pool"] = pool = loop.run_until_complete(make())
    turn = threading.Lock()

    def ask(number: int) -> Any:
        with turn:
            return loop.run_until_complete(pool.fetchval("select $1::int", number))

    return ask


def open_asyncpg_run() -> Ask:
    import asyncpg

    globals()["connection"] = asyncio.run(asyncpg.connect(POSTGRES))
    return lambda number: number


def open_duckdb() -> Ask:
    import duckdb

    path = os.path.join(os.environ["TEST_APP_DIRECTORY"], "shop.duckdb")
    globals()["db"] = db = duckdb.connect(path)
    db.execute("create table if not exists t (x integer)")
    return lambda number: db.cursor().execute("select ?::int", [number]).fetchone()[0]


def open_duckdb_reading() -> Ask:
    import duckdb

    path = os.path.join(os.environ["TEST_APP_DIRECTORY"], "shop.duckdb")
    with duckdb.connect(path) as writing:
        writing.execute("create table t as select range::integer as x from range(100)")
    globals()["db"] = db = duckdb.connect(path, read_only=True)

    def ask(number: int) -> Any:
        return db.cursor().execute("select x from t where x = ?", [number]).fetchone()[0]

    return ask


def open_duckdb_memory() -> Ask:
    import duckdb

    globals()["db"] = db = duckdb.connect()
    db.execute("create table t as select range::int as x from range(1000000)")

    def ask(number: int) -> Any:
        query = "select count(*) from t where x < ?"
        return db.cursor().execute(query, [number]).fetchone()[0]

    return ask


def open_lmdb() -> Ask:
    import lmdb

    path = os.path.join(os.environ["TEST_APP_DIRECTORY"], "shop")
    globals()["environment"] = environment = lmdb.open(path)
    with environment.begin(write=True) as writing:
        for number in range(100):
            writing.put(str(number).encode(), str(number).encode())

    def ask(number: int) -> Any:
        with environment.begin() as reading:
            return int(reading.get(str(number).encode()))

    return ask


def open_pymongo() -> Ask:
    """Without a server: what it has at once is threads."""
    import pymongo

    globals()["mongo"] = pymongo.MongoClient("mongodb://127.0.0.1:9/")
    return lambda number: number


def open_grpc() -> Ask:
    import grpc

    globals()["channel"] = channel = grpc.insecure_channel(SERVICE)
    echo = channel.unary_unary("/echo/echo")
    return lambda number: int(echo(str(number).encode(), timeout=60))


def open_opentelemetry() -> Ask:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter

    globals()["provider"] = provider = TracerProvider()
    exporter = ConsoleSpanExporter(formatter=lambda span: f"span {span.name} of {os.getpid()}\n")
    provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=100))
    tracer = provider.get_tracer("shop")

    def ask(number: int) -> Any:
        with tracer.start_as_current_span(f"asked-{number}"):
            return number

    return ask


def open_opentelemetry_metrics() -> Ask:
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import (
        ConsoleMetricExporter,
        InMemoryMetricReader,
        PeriodicExportingMetricReader,
    )

    reader = PeriodicExportingMetricReader(ConsoleMetricExporter())
    globals()["metrics"] = provider = MeterProvider([reader, InMemoryMetricReader()])
    counter = provider.get_meter("shop").create_counter("asked")

    def ask(number: int) -> Any:
        counter.add(1)
        return number

    return ask


def open_queue() -> Ask:
    """Of multiprocessing: made to be inherited. What is put by one context may come to another."""
    context = multiprocessing.get_context("fork")
    globals()["numbers"] = numbers = context.Queue()
    globals()["ends"] = ends = context.Pipe()
    globals()["lock"] = lock = context.Lock()

    def ask(number: int) -> Any:
        if number:
            with lock:  # So that it is the number that was put which comes.
                ends[0].send(number)
                return ends[1].recv()
        return 0

    assert numbers.empty()
    return ask


def open_pool() -> Ask:
    globals()["pool"] = pool = multiprocessing.get_context("fork").Pool(1)
    return lambda number: pool.apply(abs, (number,))


ask: Ask = globals()[f"open_{os.environ['TEST_OPENS']}"]()
assert ask(0) == 0


def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    body = f"{ask(int(environ['PATH_INFO'].strip('/')))} {os.getpid()}".encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
