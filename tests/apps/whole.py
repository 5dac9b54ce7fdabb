"""An application that uses asyncio to the full: databases, clients, processes, sockets, threads."""

from __future__ import annotations

import asyncio
import json
import os
import pathlib
import shutil
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Awaitable, Callable
from typing import Any

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[Any], Awaitable[None]]
Handler = Callable[[Scope], Awaitable[Any]]

HANDLERS: dict[str, Handler] = {}
DSN = os.environ.get("TEST_POSTGRES", "")


def handles(function: Handler) -> Handler:
    HANDLERS["/" + function.__name__.replace("_", "-")] = function
    return function


def number_of(scope: Scope) -> int:
    return int(scope["query_string"] or 0)


# --- databases ----------------------------------------------------------------------------------


@handles
async def asyncpg_pool(scope: Scope) -> Any:
    """A pool made in the lifespan."""
    number = number_of(scope)
    async with scope["state"]["pool"].acquire() as connection:
        value = await connection.fetchval("SELECT $1::int * 2", number)
        rows = await connection.fetch("SELECT n FROM generate_series(1, 5) AS n")
        async with connection.transaction():
            await connection.execute("INSERT INTO notes (number) VALUES ($1)", number)
    return [value, [row["n"] for row in rows]]


@handles
async def asyncpg_connection(scope: Scope) -> Any:
    import asyncpg

    connection = await asyncpg.connect(DSN)
    try:
        return await connection.fetchval("SELECT version()")
    finally:
        await connection.close()


@handles
async def asyncpg_cancel(scope: Scope) -> Any:
    """A query that takes too long is cancelled, and the connection lives on."""
    pool = scope["state"]["pool"]

    async def end_once_asleep(pid: int, limit: asyncio.Timeout) -> None:
        """A cancellation that reaches PostgreSQL before the query, it ignores."""
        query = "SELECT count(*) FROM pg_stat_activity WHERE pid = $1 AND wait_event = 'PgSleep'"
        while not await pool.fetchval(query, pid):
            pass
        limit.reschedule(asyncio.get_running_loop().time())

    async with pool.acquire() as connection:
        try:
            async with asyncio.timeout(None) as limit:
                ending = asyncio.create_task(end_once_asleep(connection.get_server_pid(), limit))
                await connection.execute("SELECT pg_sleep(30)")
        except TimeoutError:
            await ending
            return await connection.fetchval("SELECT 'alive'")
    return "not cancelled"


@handles
async def asyncpg_notify(scope: Scope) -> Any:
    async with scope["state"]["pool"].acquire() as one, scope["state"]["pool"].acquire() as two:
        heard: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        channel = f"channel_{number_of(scope)}"

        def listener(_connection: Any, _pid: int, _channel: str, payload: str) -> None:
            heard.set_result(payload)

        await one.add_listener(channel, listener)
        await two.execute(f"NOTIFY {channel}, 'a payload'")
        text = await asyncio.wait_for(heard, 10)
        await one.remove_listener(channel, listener)
        return text


@handles
async def psycopg_connection(scope: Scope) -> Any:
    import psycopg

    number = number_of(scope)
    async with (
        await psycopg.AsyncConnection.connect(DSN) as connection,
        connection.cursor() as cursor,
    ):
        await cursor.execute("SELECT %s::int + 1", (number,))
        row = await cursor.fetchone()
        await cursor.execute("SELECT n FROM generate_series(1, 1000) AS n")
        return [row[0], len(await cursor.fetchall())]


@handles
async def psycopg_in_a_thread(scope: Scope) -> Any:
    import psycopg

    def query() -> Any:
        with psycopg.connect(DSN) as connection:
            return connection.execute("SELECT 7").fetchone()[0]

    return await asyncio.to_thread(query)


@handles
async def psycopg_pipeline(scope: Scope) -> Any:
    import psycopg

    async with await psycopg.AsyncConnection.connect(DSN) as connection:
        async with connection.pipeline():
            cursors = [await connection.execute("SELECT %s::int", (n,)) for n in range(5)]
        return [(await cursor.fetchone())[0] for cursor in cursors]


# --- HTTP from inside ---------------------------------------------------------------------------


def own_url(scope: Scope, path: str) -> str:
    host, port = scope["server"]
    return f"http://{host}:{port}{path}"


@handles
async def httpx_client(scope: Scope) -> Any:
    """Asks the server it is served by."""
    answers = await asyncio.gather(
        *(scope["state"]["http"].get(own_url(scope, f"/sleep?{n}")) for n in range(5))
    )
    return [answer.json() for answer in answers]


@handles
async def httpx_stream(scope: Scope) -> Any:
    async def parts() -> Any:
        for _ in range(20):
            yield b"x" * 10_000
            await asyncio.sleep(0)

    async with scope["state"]["http"].stream(
        "POST", own_url(scope, "/length"), content=parts()
    ) as answer:
        return json.loads(b"".join([part async for part in answer.aiter_bytes()]))


@handles
async def length(scope: Scope) -> Any:
    return scope["body_length"]


# --- processes ----------------------------------------------------------------------------------


@handles
async def subprocess_exec(scope: Scope) -> Any:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        "import sys; sys.stdout.write(sys.stdin.read().upper()); sys.exit(3)",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate(b"some text")
    return [out.decode(), process.returncode]


@handles
async def subprocess_shell(scope: Scope) -> Any:
    process = await asyncio.create_subprocess_shell(
        "echo out; echo err >&2; exit 4",
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    return [out.decode(), err.decode(), process.returncode]


@handles
async def subprocess_lines(scope: Scope) -> Any:
    process = await asyncio.create_subprocess_exec("cat", stdin=-1, stdout=-1)
    assert process.stdin is not None
    assert process.stdout is not None
    lines = []
    for number in range(5):
        process.stdin.write(b"line %d\n" % number)
        await process.stdin.drain()
        lines.append((await process.stdout.readline()).decode())
    process.stdin.close()
    return [lines, await process.wait()]


@handles
async def subprocess_killed(scope: Scope) -> Any:
    process = await asyncio.create_subprocess_exec("sleep", "60")
    process.terminate()
    return await asyncio.wait_for(process.wait(), 10)


@handles
async def subprocess_many(scope: Scope) -> Any:
    async def one(number: int) -> int | None:
        process = await asyncio.create_subprocess_exec("sh", "-c", f"exit {number}")
        return await process.wait()

    return await asyncio.gather(*(one(number) for number in range(8)))


@handles
async def process_pool(scope: Scope) -> Any:
    import concurrent.futures
    import multiprocessing

    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        return await asyncio.get_running_loop().run_in_executor(pool, pow, 3, 4)


# --- threads and timers ---------------------------------------------------------------------------


@handles
async def to_thread(scope: Scope) -> Any:
    names = await asyncio.gather(
        *(asyncio.to_thread(lambda: threading.current_thread().name) for _ in range(20))
    )
    return len(names), threading.current_thread().name in names


@handles
async def sleep(scope: Scope) -> Any:
    await asyncio.sleep(0.01)
    return number_of(scope)


@handles
async def timers(scope: Scope) -> Any:
    loop = asyncio.get_running_loop()
    fired: list[int] = []
    for number in range(50):
        loop.call_later(number / 5000, fired.append, number)
    loop.call_at(loop.time() + 0.001, fired.append, 1000)
    cancelled = loop.call_later(0.001, fired.append, 2000)
    cancelled.cancel()
    await asyncio.sleep(0.05)
    return [len(fired), 2000 in fired, sorted(fired) == sorted(set(fired))]


@handles
async def own_signal(scope: Scope) -> Any:
    """A signal that means nothing to the server belongs to the application."""
    loop = asyncio.get_running_loop()
    seen = asyncio.Event()
    number = signal.SIGRTMIN + 3
    loop.add_signal_handler(number, seen.set)
    try:
        os.kill(os.getpid(), number)
        await asyncio.wait_for(seen.wait(), 10)
    finally:
        loop.remove_signal_handler(number)
    return "heard"


@handles
async def ticking(scope: Scope) -> Any:
    """A task of the lifespan runs between requests."""
    before = scope["state"]["ticks"][0]
    await asyncio.sleep(0.05)
    return scope["state"]["ticks"][0] > before


# --- sockets --------------------------------------------------------------------------------------


@handles
async def own_server(scope: Scope) -> Any:
    """A server and clients of the application's own, on the same loop."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            writer.write(line.upper())
            await writer.drain()
        writer.close()
        await writer.wait_closed()

    async def ask(port: int, number: int) -> str:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"client {number}\n".encode())
        answer = (await reader.readline()).decode()
        writer.close()
        await writer.wait_closed()
        return answer

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        return await asyncio.gather(*(ask(port, number) for number in range(5)))


@handles
async def unix_server(scope: Scope) -> Any:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.read())
        writer.close()
        await writer.wait_closed()

    directory = pathlib.Path(tempfile.mkdtemp())
    try:
        async with await asyncio.start_unix_server(serve, directory / "socket"):
            reader, writer = await asyncio.open_unix_connection(directory / "socket")
            writer.write(b"x" * 500_000)
            writer.write_eof()
            size = len(await reader.read())
            writer.close()
            await writer.wait_closed()
        return size
    finally:
        shutil.rmtree(directory)


@handles
async def datagrams(scope: Scope) -> Any:
    loop = asyncio.get_running_loop()
    heard: asyncio.Future[bytes] = loop.create_future()

    class Listener(asyncio.DatagramProtocol):
        def datagram_received(self, data: bytes, address: Any) -> None:
            heard.set_result(data)

    one, _ = await loop.create_datagram_endpoint(Listener, local_addr=("127.0.0.1", 0))
    two, _ = await loop.create_datagram_endpoint(
        asyncio.DatagramProtocol, remote_addr=one.get_extra_info("sockname")
    )
    two.sendto(b"datagram")
    data = await asyncio.wait_for(heard, 10)
    one.close()
    two.close()
    return data.decode()


@handles
async def readers_and_writers(scope: Scope) -> Any:
    """Descriptors watched by hand."""
    loop = asyncio.get_running_loop()
    one, two = socket.socketpair()
    one.setblocking(False)
    two.setblocking(False)
    done: asyncio.Future[bytes] = loop.create_future()
    loop.add_reader(one, lambda: done.set_result(one.recv(100)))
    loop.add_writer(two, lambda: (two.send(b"watched"), loop.remove_writer(two)))
    data = await asyncio.wait_for(done, 10)
    loop.remove_reader(one)
    one.close()
    two.close()
    return data.decode()


@handles
async def socket_calls(scope: Scope) -> Any:
    loop = asyncio.get_running_loop()
    one, two = socket.socketpair()
    with one, two:
        one.setblocking(False)
        two.setblocking(False)
        sender = asyncio.create_task(loop.sock_sendall(one, b"y" * 1_000_000))
        total = 0
        while total < 1_000_000:
            total += len(await loop.sock_recv(two, 65536))
        await sender
    return total


@handles
async def pipes(scope: Scope) -> Any:
    loop = asyncio.get_running_loop()
    read_end, write_end = os.pipe()
    reader = asyncio.StreamReader()
    transport, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(read_end, "rb", 0)
    )
    writing, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, os.fdopen(write_end, "wb", 0))
    writing.write(b"through a pipe")
    writing.close()
    data = await reader.read()
    transport.close()
    return data.decode()


@handles
async def names(scope: Scope) -> Any:
    found = await asyncio.get_running_loop().getaddrinfo("localhost", 80, type=socket.SOCK_STREAM)
    return bool(found)


@handles
async def many_sockets(scope: Scope) -> Any:
    """More descriptors than a select() call could watch."""
    loop = asyncio.get_running_loop()
    pairs = [socket.socketpair() for _ in range(200)]
    received = 0
    done = loop.create_future()

    def ready(end: socket.socket) -> None:
        nonlocal received
        end.recv(1)
        loop.remove_reader(end)
        received += 1
        if received == len(pairs):
            done.set_result(received)

    try:
        for one, _ in pairs:
            loop.add_reader(one, ready, one)
        for _, two in pairs:
            two.send(b".")
        return await asyncio.wait_for(done, 10)
    finally:
        for pair in pairs:
            for end in pair:
                end.close()


# --- the application ------------------------------------------------------------------------------


async def http(scope: Scope, receive: Receive, send: Send) -> None:
    scope["body_length"], more = 0, True
    while more:
        message = await receive()
        scope["body_length"] += len(message.get("body", b""))
        more = message.get("more_body", False)
    body = json.dumps(await HANDLERS[scope["path"]](scope)).encode()
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def lifespan(scope: Scope, receive: Receive, send: Send) -> None:
    import httpx

    await receive()
    state = scope["state"]
    ticks = state["ticks"] = [0]

    async def tick() -> None:
        while True:
            await asyncio.sleep(0.001)
            ticks[0] += 1

    ticker = asyncio.create_task(tick())
    state["http"] = httpx.AsyncClient(timeout=20)
    if DSN:
        import asyncpg

        state["pool"] = await asyncpg.create_pool(DSN, min_size=1, max_size=4)
        async with state["pool"].acquire() as connection, connection.transaction():
            # IF NOT EXISTS does not help contexts that begin at the same moment.
            await connection.execute("SELECT pg_advisory_xact_lock(1)")
            await connection.execute("CREATE TABLE IF NOT EXISTS notes (number int)")
    await send({"type": "lifespan.startup.complete"})
    await receive()
    ticker.cancel()
    await state["http"].aclose()
    if DSN:
        await state["pool"].close()
    await send({"type": "lifespan.shutdown.complete"})


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    await (lifespan if scope["type"] == "lifespan" else http)(scope, receive, send)
