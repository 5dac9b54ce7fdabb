"""A WSGI application that opens at import what the environment says, and answers through it."""

from __future__ import annotations

import asyncio
import logging.handlers
import os
import queue
import sqlite3
import sys
import threading
from collections.abc import Callable
from typing import Any

from support import record

record("import")
POSTGRES = os.environ.get("TEST_POSTGRES", "")
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


def open_loop() -> Ask:
    """What a2wsgi does: the work is done by the loop of another thread."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="loop", daemon=True).start()
    globals()["loop"] = loop

    async def answer(number: int) -> int:
        return number

    return lambda number: asyncio.run_coroutine_threadsafe(answer(number), loop).result(60)


ask: Ask = globals()[f"open_{os.environ['TEST_OPENS']}"]()
assert ask(0) == 0


def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    body = f"{ask(int(environ['PATH_INFO'].strip('/')))} {os.getpid()}".encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
