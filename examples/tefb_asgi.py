"""The TechEmpower suite as an ASGI application, to compare servers by: on PostgreSQL or SQLite.

TEFB_DSN=postgresql://benchmarkdbuser:B3nchmarkDBPass@localhost/hello_world \
    ppserver 'tefb_asgi:make()' --app-dir examples
uvicorn --factory tefb_asgi:make --app-dir examples

Without TEFB_DSN it uses the SQLite file hello_world that `python -m examples.tefb_db sqlite` makes.
An application of its own for each event loop: with threads, every context makes one.
"""

import contextlib
import os
import sqlite3
import threading

import anyio.to_thread
import numpy as np
from starlette.applications import Starlette
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse
from starlette.routing import Route
from tefb_pages import clamped, page_of, with_extra

WORLDS = 10_000
HINT = "python -m examples.tefb_db sqlite (or postgresql) makes it"


class PostgreSQL:
    """A pool of connections per application."""

    def __init__(self, dsn, size=8):
        from psycopg_pool import AsyncConnectionPool, PoolTimeout

        self._timeout = PoolTimeout
        self._pool = AsyncConnectionPool(dsn, min_size=1, max_size=size, open=False)

    async def open(self):
        try:
            await self._pool.open(wait=True, timeout=10)
        except self._timeout:
            raise RuntimeError(f"TEFB_DSN leads to no database that answers: {HINT}") from None

    async def close(self):
        await self._pool.close()

    async def worlds(self, ids):
        async with self._pool.connection() as connection:
            return await self._select(connection, ids)

    async def _select(self, connection, ids):
        found = []
        for number in ids:
            rows = await connection.execute(
                "SELECT id, randomNumber FROM world WHERE id = %s", (number,), prepare=True
            )
            found.append(await rows.fetchone())
        return found

    async def update(self, ids, numbers):
        async with self._pool.connection() as connection:
            await self._select(connection, ids)
            async with connection.cursor() as cursor:
                await cursor.executemany(
                    "UPDATE world SET randomNumber = %s WHERE id = %s",
                    list(zip(numbers, ids, strict=True)),
                )

    async def fortunes(self):
        async with self._pool.connection() as connection:
            rows = await connection.execute("SELECT id, message FROM fortune", prepare=True)
            return await rows.fetchall()


class SQLite:
    """A connection per thread of the thread pool."""

    def __init__(self, path):
        self._path = path
        self._own = threading.local()
        self._all = []

    async def open(self):
        try:
            await self.worlds([1])
        except sqlite3.Error as error:
            raise RuntimeError(f"{self._path}, a database for TEFB: {error}; {HINT}") from None

    async def close(self):
        while self._all:
            self._all.pop().close()

    def _connection(self):
        found = getattr(self._own, "connection", None)
        if found is None:
            # No file is made by looking for one. Whoever closes them may be another thread.
            found = self._own.connection = sqlite3.connect(
                f"file:{self._path}?mode=rw",
                uri=True,
                timeout=60,
                isolation_level=None,
                check_same_thread=False,
            )
            self._all.append(found)
        return found

    def _select(self, ids):
        query = "SELECT id, randomNumber FROM world WHERE id = ?"
        return [self._connection().execute(query, (number,)).fetchone() for number in ids]

    def _update(self, ids, numbers):
        self._select(ids)
        connection = self._connection()
        connection.execute("BEGIN IMMEDIATE")
        try:
            connection.executemany(
                "UPDATE world SET randomNumber = ? WHERE id = ?", zip(numbers, ids, strict=True)
            )
            connection.execute("COMMIT")
        except BaseException:
            connection.execute("ROLLBACK")
            raise

    async def worlds(self, ids):
        return await anyio.to_thread.run_sync(self._select, ids)

    async def update(self, ids, numbers):
        await anyio.to_thread.run_sync(self._update, ids, numbers)

    async def fortunes(self):
        query = "SELECT id, message FROM fortune"
        return await anyio.to_thread.run_sync(lambda: self._connection().execute(query).fetchall())


def as_world(row):
    return {"id": row[0], "randomNumber": row[1]}


def make():
    """The application, with a database and random numbers of its own."""
    dsn = os.environ.get("TEFB_DSN")
    database = PostgreSQL(dsn) if dsn else SQLite(os.environ.get("TEFB_SQLITE", "hello_world"))
    own = {}

    def numbers(count):
        return own["numbers"].integers(1, WORLDS, count, endpoint=True).tolist()

    def ids(count):
        return sorted((own["numbers"].choice(WORLDS, count, replace=False) + 1).tolist())

    async def json(request):
        return JSONResponse({"message": "Hello, World!"})

    async def plaintext(request):
        return PlainTextResponse("Hello, World!")

    async def db(request):
        return JSONResponse(as_world((await database.worlds(ids(1)))[0]))

    async def queries(request):
        found = await database.worlds(ids(clamped(request.query_params.get("queries"))))
        return JSONResponse([as_world(row) for row in found])

    async def updates(request):
        chosen = ids(clamped(request.query_params.get("queries")))
        new = numbers(len(chosen))
        await database.update(chosen, new)
        return JSONResponse([as_world(row) for row in zip(chosen, new, strict=True)])

    async def fortunes(request):
        return HTMLResponse(page_of(with_extra(await database.fortunes())))

    @contextlib.asynccontextmanager
    async def lifespan(app):
        own["numbers"] = np.random.default_rng()  # Here, not before a fork: all would be alike.
        await database.open()
        yield
        await database.close()

    handlers = (json, plaintext, db, queries, updates, fortunes)
    routes = [Route(f"/{handler.__name__}", handler) for handler in handlers]
    return Starlette(routes=routes, lifespan=lifespan)
