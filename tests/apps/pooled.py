"""A Starlette application with a pool of PostgreSQL connections on ``app.state``."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import AsyncIterator

import psycopg_pool
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route


@contextlib.asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    pool = psycopg_pool.AsyncConnectionPool(
        os.environ["TEST_POSTGRES"], min_size=1, max_size=4, open=False
    )
    await pool.open(wait=True)
    app.state.pool = pool
    yield
    await pool.close()


async def query(request: Request) -> JSONResponse:
    number = int(request.query_params["number"])
    async with request.app.state.pool.connection() as connection:
        cursor = await connection.execute("SELECT %s::int * 2, pg_sleep(0.001)", (number,))
        row = await cursor.fetchone()
    return JSONResponse({"twice": row[0], "pid": os.getpid(), "thread": threading.get_native_id()})


def make() -> Starlette:
    return Starlette(routes=[Route("/query", query)], lifespan=lifespan)


app = make()
