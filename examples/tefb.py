"""The TechEmpower suite over ODBC, as PyParallel had it: `curl localhost:8080/queries?queries=3`.

python -m examples.tefb_db sqlite        (or postgresql; it says what to put into the environment)
python examples/tefb.py                  (or: ppserver examples/tefb.py --cores 4)

Routes: /json /plaintext /fortunes /fortunes_raw /db /queries?queries=N /updates?queries=N
        /stats /hello /elapsed /shutdown

Every thread of every context has a connection of its own and keeps it. The program of PyParallel
differed from TechEmpower's requirements in the text of its messages, drew ids from 0, and changed
the wrong rows for any count but 2; this one does what they ask for.
"""

import logging
import os
import sys
import threading
import time

import numpy as np

try:
    import pyodbc
except ModuleNotFoundError:
    raise SystemExit("TEFB needs pyodbc: pip install pyodbc") from None
except ImportError as error:  # It is there, and unixODBC is not.
    raise SystemExit(f"pyodbc needs unixODBC: apt-get install unixodbc ({error})") from None
import parallel
from parallel.http.server import (
    HttpServer,
    html_response,
    json_serialization,
    make_routes,
    router,
    text_response,
    text_serialization,
)
from tefb_pages import clamped, page_of, with_extra

CONNECT = os.environ.get(
    "TEFB_CONNECT",
    "Driver={SQL Server};Server=localhost;Database=hello_world;"
    "Uid=benchmarkdbuser;Pwd=B3nchmarkDBPass;",
)
WORLDS = 10_000

HINT = "python -m examples.tefb_db sqlite (or postgresql) makes it, and says what to do then"
START = "apt-get install postgresql, or systemctl start postgresql; TEFB_CONNECT says where it is"
TROUBLE_SECONDS = 5.0

logger = logging.getLogger("ppserver.error")
own = threading.local()

routes = make_routes()
route = router(routes)


class DatabaseError(Exception):
    """What keeps the database from answering, and what to do about it."""


def explained(error):
    """A DatabaseError for what pyodbc raises, in one line."""
    state, text = str(error.args[0]), " ".join(str(error.args[-1]).split())
    if "Can't open lib" in text or state in ("IM002", "IM003"):
        return DatabaseError(f"there is no such ODBC driver: {HINT}. {text}")
    # SQLite's driver says "syntax error" of a table that is not there.
    if state in ("42S02", "42P01") or "no such table" in text or "syntax error (1)" in text:
        return DatabaseError(f"the database has no table of that name: {HINT}. {text}")
    # These have no states of their own: both drivers say that it could not connect.
    if "does not exist" in text or "authentication failed" in text:
        return DatabaseError(f"there is no such database, role or password: {HINT}. {text}")
    if "connect failed (14)" in text or "not a database" in text:
        return DatabaseError(f"the file is no database, or cannot be opened: {HINT}. {text}")
    if state.startswith("08"):
        return DatabaseError(f"the database server does not answer: is it running? {START}. {text}")
    return DatabaseError(text)


def connection():
    """This thread's connection, made when it is first needed."""
    found = getattr(own, "connection", None)
    if found is None:
        found = own.connection = pyodbc.connect(CONNECT, autocommit=True, timeout=10)
        own.numbers = np.random.default_rng()  # Here, not before a fork: all would draw the same.
    return found


def forget():
    """The connection is of no use any more."""
    found, own.connection = getattr(own, "connection", None), None
    if found is not None:
        try:
            found.close()
        except pyodbc.Error:
            pass


def with_connection(use):
    """What `use(cursor)` gives. With a connection that was kept it is tried again with a new one:
    how a driver says that the old one has been lost, each has its own way."""
    while True:
        kept = getattr(own, "connection", None) is not None
        try:
            cursor = connection().cursor()
            try:
                return use(cursor)
            finally:
                cursor.close()
        except pyodbc.Error as error:
            forget()
            if not kept:
                raise explained(error) from error


def random_ids(count):
    """Different ones, ascending: updates in that order cannot wait for each other in a circle."""
    return np.sort(own.numbers.choice(WORLDS, count, replace=False)) + 1


def select(cursor, ids):
    found = []
    for number in ids:
        cursor.execute("SELECT id, randomNumber FROM world WHERE id = ?", int(number))
        row = cursor.fetchone()
        if row is None:
            raise DatabaseError(f"the table world has no row {number}: {HINT}")
        found.append(tuple(row))
    return found


def worlds(count):
    return with_connection(lambda cursor: select(cursor, random_ids(count)))


def update(cursor, count):
    """Rows are read one by one, and written together. Reading before the transaction keeps SQLite
    from having to turn a reader into a writer, which it refuses when there is another one."""
    found = select(cursor, random_ids(count))
    numbers = own.numbers.integers(1, WORLDS, count, endpoint=True)
    changed = [(number, int(new)) for (number, _), new in zip(found, numbers, strict=True)]
    own.connection.autocommit = False
    try:
        cursor.executemany(
            "UPDATE world SET randomNumber = ? WHERE id = ?", [(new, n) for n, new in changed]
        )
        own.connection.commit()
    except BaseException:
        own.connection.rollback()
        raise
    finally:
        own.connection.autocommit = True
    return changed


def fortunes():
    def all_of_them(cursor):
        return [tuple(row) for row in cursor.execute("SELECT id, message FROM fortune").fetchall()]

    return with_extra(with_connection(all_of_them))


def as_world(row):
    return {"id": row[0], "randomNumber": row[1]}


class TefbHttpServer(HttpServer):
    routes = routes
    last_trouble = 0.0

    @route
    def json(self, request):
        return json_serialization(request)

    @route
    def plaintext(self, request):
        return text_serialization(request)

    @route
    def fortunes(self, request):
        return html_response(request, page_of(fortunes()))

    @route
    def fortunes_raw(self, request):
        return json_serialization(request, fortunes())

    @route
    def db(self, request):
        return json_serialization(request, as_world(worlds(1)[0]))

    @route
    def queries(self, request, queries=None):
        return json_serialization(request, [as_world(row) for row in worlds(clamped(queries))])

    @route
    def updates(self, request, queries=None):
        count = clamped(queries)
        changed = with_connection(lambda cursor: update(cursor, count))
        return json_serialization(request, [as_world(row) for row in changed])

    @route
    def stats(self, request):
        numbers = {
            "system": dict(parallel.sys_stats()),
            "server": dict(parallel.socket_stats(request.transport.parent)),
            "memory": dict(parallel.memory_stats()),
            "contexts": dict(parallel.context_stats()),
        }
        return json_serialization(request, numbers)

    @route
    def hello(self, request, name="World"):
        return text_response(request, f"Hello, {name}!")

    @route
    def elapsed(self, request):
        return json_serialization(request, {"elapsed": request.transport.elapsed()})

    @route
    def shutdown(self, request):
        request.transport.shutdown_server()
        return text_response(request, "shutting down")

    def exception_handler(self, transport, exc):
        """A database that cannot be had is one line now and then, and not ours to hide."""
        if not isinstance(exc, DatabaseError):
            return super().exception_handler(transport, exc)
        if time.monotonic() - TefbHttpServer.last_trouble > TROUBLE_SECONDS:
            TefbHttpServer.last_trouble = time.monotonic()
            logger.error("database: %s", exc)
        return None


class CheatingPlaintextHttpServer:
    """Answers whatever comes with the same bytes, which nobody reads."""

    initial_bytes_to_send = b""
    next_bytes_to_send = (
        b"HTTP/1.1 200 OK\r\nServer: ppserver\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\n"
        b"Content-Type: text/plain\r\nContent-Length: 13\r\n\r\nHello, World!"
    )


def main(cheat=False):
    server = parallel.server("0.0.0.0", 8080)
    parallel.register(
        transport=server, protocol=CheatingPlaintextHttpServer if cheat else TefbHttpServer
    )
    # Each thread has a connection, and PostgreSQL has room for a hundred.
    parallel.run(threads=int(os.environ.get("PPSERVER_THREADS", "8")))


if __name__ == "__main__":
    main(cheat="cheat" in sys.argv[1:])
