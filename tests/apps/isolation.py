"""The core of the suite in one function, to be run in many threads or interpreters at once.

`exercise()` makes cores of its own, serves ASGI under every kind of task and WSGI on them, and
is its own client over real sockets. Nothing is shared with another call of it, so whatever goes
wrong only in company is the extension's fault.

    python isolation.py COUNT ROUNDS    COUNT interpreters and as many threads at once; JSON lines
"""

from __future__ import annotations

import asyncio
import contextvars
import gc
import importlib.machinery
import importlib.util
import json
import os
import socket
import sys
import threading
import weakref
from collections.abc import Callable, Coroutine, Iterator
from types import ModuleType
from typing import Any, NamedTuple

from ppserver import _native

SECONDS = 60.0
BIG = bytes(range(256)) * 1200
TASKS = ("worker", "eager", "plain") if sys.version_info >= (3, 12) else ("worker", "plain")

seen: contextvars.ContextVar[str] = contextvars.ContextVar("seen", default="nothing")


class ExpectedError(Exception):
    """Raised by the applications on purpose."""


class Outcome(NamedTuple):
    """What a core counted, and the applications' exceptions it reported."""

    requests: int
    errors: list[BaseException]


async def application(scope: Any, receive: Any, send: Any) -> None:
    """ASGI: the path says what to do."""
    path, body = scope["path"], b""
    task = asyncio.current_task()
    assert task is not None
    assert task in asyncio.all_tasks()
    assert seen.get() == "nothing", "a context variable came from another request"
    seen.set(path)
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    if path == "/raise":
        raise ExpectedError(path)
    if path == "/suspend":
        async with asyncio.timeout(SECONDS), asyncio.TaskGroup() as group:
            for _ in range(3):
                group.create_task(asyncio.sleep(0))
    assert asyncio.current_task() is task
    await send(
        {"type": "http.response.start", "status": 200, "headers": [(b"x-path", path.encode())]}
    )
    if path == "/stream":
        for _ in range(20):
            await send({"type": "http.response.body", "body": b"part;", "more_body": True})
            await asyncio.sleep(0)
        body = b"end"
    elif path == "/big":
        body = BIG
    elif path == "/query":
        body = scope["query_string"] + b" " + dict(scope["headers"]).get(b"x-mark", b"")
    await send({"type": "http.response.body", "body": body})


def wsgi_application(environ: dict[str, Any], start_response: Any) -> Any:
    """WSGI: the same, as far as it goes."""
    path = environ["PATH_INFO"]
    body = environ["wsgi.input"].read()
    if path == "/raise":
        raise ExpectedError(path)
    start_response("200 OK", [("x-path", path)])
    if path == "/stream":
        return iter([b"part;"] * 20 + [b"end"])
    if path == "/big":
        return [BIG]
    if path == "/query":
        return [environ["QUERY_STRING"].encode(), b" ", environ.get("HTTP_X_MARK", "").encode()]
    return [body]


def request(path: str, body: bytes = b"", *, chunked: bool = False, more: str = "") -> bytes:
    if chunked:
        pieces = [body[at : at + 7] for at in range(0, len(body), 7)]
        framed = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
        head, body = "Transfer-Encoding: chunked\r\n", framed + b"0\r\n\r\n"
    else:
        head = f"Content-Length: {len(body)}\r\n" if body else ""
    method = "POST" if body else "GET"
    return f"{method} {path} HTTP/1.1\r\nHost: test\r\n{head}{more}\r\n".encode() + body


def conversation(mark: str) -> tuple[bytes, list[tuple[int, bytes]]]:
    """Pipelined requests and the answers that belong to them."""
    pairs = [
        (request(f"/query?{mark}", more=f"X-Mark: {mark}\r\n"), (200, f"{mark} {mark}".encode())),
        (request("/echo", b"length " + mark.encode()), (200, b"length " + mark.encode())),
        (request("/echo", b"chunked " * 9, chunked=True), (200, b"chunked " * 9)),
        (request("/suspend"), (200, b"")),
        (request("/big"), (200, BIG)),
        (request("/stream"), (200, b"part;" * 20 + b"end")),
        (
            request(f"/query?last{mark}", more="Connection: close\r\n"),
            (200, f"last{mark} ".encode()),
        ),
    ]
    return b"".join(sent for sent, _ in pairs), [answer for _, answer in pairs]


# Each ends its connection: an answer, and nothing after it.
BAD = [
    (b"GET / HTTP/1.1\nHost: test\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: test\r\nHost: other\r\n\r\n", 400),
    (b"GET /" + b"a" * 10000 + b" HTTP/1.1\r\nHost: test\r\n\r\n", 414),
    (b"GET / HTTP/3.0\r\nHost: test\r\n\r\n", 505),
    (request("/raise", more="Connection: close\r\n"), 500),
]


def answers(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Status and body of each response in a stream."""
    while data:
        head, _, data = data.partition(b"\r\n\r\n")
        status_line, *lines = head.decode("latin-1").split("\r\n")
        fields = dict(line.lower().split(": ", 1) for line in lines)
        if fields.get("transfer-encoding") == "chunked":
            body = b""
            while True:
                size, _, data = data.partition(b"\r\n")
                count = int(size, 16)
                body, data = body + data[:count], data[count + 2 :]
                if count == 0:
                    break
        else:
            count = int(fields["content-length"])
            body, data = data[:count], data[count:]
        yield int(status_line.split()[1]), body


def listener() -> socket.socket:
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    sock.listen(64)
    sock.setblocking(False)
    return sock


def check(mark: str, got: bytes, expected: list[tuple[int, bytes]]) -> None:
    found = list(answers(got))
    if found != expected:
        brief = [(status, len(body), body[:40]) for status, body in found]
        raise AssertionError(f"{mark}: {brief}")


def check_bad(got: bytes, status: int) -> None:
    found = [code for code, _ in answers(got)]
    assert found == [status], f"{found} instead of {status}"


async def talk(port: int, data: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    got = await reader.read(-1)
    writer.close()
    await writer.wait_closed()
    return got


def run_asgi(app: Any, task: str, drive: Callable[[int], Coroutine[Any, Any, None]]) -> Outcome:
    """Serve `app` on a loop whose selector is a core, while `drive(port)` is its client."""
    core = _native.Core(server_header=False)
    errors: list[BaseException] = []
    selector = core.selector()

    async def main(sock: socket.socket) -> int:
        core.serve_asgi(
            app,
            asyncio.get_running_loop(),
            state={},
            task=task,
            on_error=lambda error, scope: errors.append(error),
        )
        core.add_listener(sock.fileno())
        await drive(sock.getsockname()[1])
        core.drain()
        while not core.drained():  # noqa: ASYNC110 (only polling tells)
            await asyncio.sleep(0)
        return core.stats()["requests"]

    with listener() as sock:
        with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selector)) as runner:
            requests = runner.run(asyncio.wait_for(main(sock), SECONDS))
        core.close()
    return Outcome(requests, errors)


def serve_asgi(task: str, rounds: int, mark: str) -> int:
    """Conversations with `application`; how many requests the core counted."""

    async def drive(port: int) -> None:
        for turn in range(rounds):
            talks = [conversation(f"{mark}.{task}.{turn}.{number}") for number in range(4)]
            got = await asyncio.gather(*(talk(port, data) for data, _ in talks))
            for stream, (_, expected) in zip(got, talks, strict=True):
                check(mark, stream, expected)
            for data, status in BAD:
                check_bad(await talk(port, data), status)

    requests, errors = run_asgi(application, task, drive)
    assert [type(error) for error in errors] == [ExpectedError] * rounds, errors
    return requests


def serve_battery() -> int:
    """Every check of `battery`, on one connection; how many steps passed.

    Its steps keep things in the module, so that only one context of an interpreter may run it.
    """
    from battery import app
    from battery.core import CHECKS

    steps = [(name, step) for name, all_steps in CHECKS.items() for step in range(len(all_steps))]
    paths = [path for name, step in steps for path in (f"/check/{name}/{step}", "/pristine")]

    def client(port: int) -> None:
        with socket.create_connection(("127.0.0.1", port), SECONDS) as sock:
            for path in paths:
                sock.sendall(request(path))
                status, body = one_answer(sock)
                assert status in (200, 204), f"{path}: {status}\n{body.decode()}"

    requests, errors = run_asgi(app, "worker", lambda port: asyncio.to_thread(client, port))
    assert requests == len(paths), f"{requests} of {len(paths)} requests"
    assert errors == [], errors
    return len(steps)


def one_answer(sock: socket.socket) -> tuple[int, bytes]:
    """The next response on a connection that stays open; it has a Content-Length, or no body."""
    got = b""
    while b"\r\n\r\n" not in got:
        got += sock.recv(65536) or _ended(got)
    head, _, body = got.partition(b"\r\n\r\n")
    length = next(
        (
            int(line[15:])
            for line in head.lower().split(b"\r\n")
            if line.startswith(b"content-length:")
        ),
        0,
    )
    while len(body) < length:
        body += sock.recv(65536) or _ended(got)
    return int(head.split()[1]), body


def _ended(got: bytes) -> bytes:
    raise AssertionError(f"the connection ended after {got!r}")


def exchange(port: int, data: bytes) -> bytes:
    got = b""
    with socket.create_connection(("127.0.0.1", port), SECONDS) as sock:
        sock.sendall(data)
        while piece := sock.recv(65536):
            got += piece
    return got


def serve_wsgi(rounds: int, mark: str) -> int:
    """WSGI on a thread of its own, with two more; how many requests it counted."""
    errors: list[BaseException] = []
    cores: list[Any] = []
    counted: list[int] = []
    ready = threading.Event()

    def context(sock: socket.socket) -> None:
        core = _native.Core(server_header=False)
        core.serve_wsgi(
            wsgi_application, threads=3, on_error=lambda error, environ: errors.append(error)
        )
        core.add_listener(sock.fileno())
        cores.append(core)
        ready.set()
        core.run_wsgi()
        counted.append(core.stats()["requests"])
        core.close()

    with listener() as sock:
        thread = threading.Thread(target=context, args=(sock,))
        thread.start()
        assert ready.wait(SECONDS)
        port = sock.getsockname()[1]
        for turn in range(rounds):
            data, expected = conversation(f"{mark}.wsgi.{turn}")
            check(mark, exchange(port, data), expected)
            for bad, status in BAD:
                check_bad(exchange(port, bad), status)
        cores[0].drain()
        thread.join(SECONDS)
        assert not thread.is_alive(), "run_wsgi() did not end"
    assert [type(error) for error in errors] == [ExpectedError] * rounds, errors
    return counted[0]


def exercise(rounds: int, mark: str) -> dict[str, int]:
    """Everything, on cores of its own; what was counted. Raises at the first mistake."""
    counted = {task: serve_asgi(task, rounds, mark) for task in TASKS}
    counted["wsgi"] = serve_wsgi(rounds, mark)
    return counted


def expected_count(rounds: int) -> dict[str, int]:
    """What `exercise` has to return: seven requests a conversation, and the one that raises."""
    return {**dict.fromkeys(TASKS, rounds * (4 * 7 + 1)), "wsgi": rounds * (7 + 1)}


# The module as an object.


def load_again() -> ModuleType:
    """The extension as another module object, beside the imported one."""
    loader = importlib.machinery.ExtensionFileLoader(_native.__name__, str(_native.__file__))
    spec = importlib.util.spec_from_loader(_native.__name__, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


def types_of(module: ModuleType) -> list[type]:
    """The extension's own types: a module's state shows what it holds to the collector."""
    return [
        held
        for held in gc.get_referents(module)
        if isinstance(held, type) and held.__module__.startswith("ppserver")
    ]


def what_stays() -> list[str]:
    """What a module that was loaded and used leaves behind once nobody has it any more."""
    module = load_again()
    core = module.Core()
    core.selector()
    core.close()
    watched = [weakref.ref(module), *map(weakref.ref, types_of(module))]
    assert len(watched) > 5
    del module, core
    gc.collect()
    return [repr(left) for ref in watched if (left := ref()) is not None]


# Interpreters and threads: each says "loaded", waits for the others, and says how it went.


def take_part(name: str, rounds: int, news: int, gate: int) -> None:
    """Run by `main` on threads, and in interpreters of their own."""
    identity = {"core": id(_native.Core), "error": id(_native.ClientDisconnected)}
    os.write(news, json.dumps({"loaded": name, **identity}).encode() + b"\n")
    os.read(gate, 1)  # Ends for all of them at once, when the gate's other end is closed.
    try:
        outcome: dict[str, Any] = {"counted": exercise(rounds, name)}
        if name.startswith("interpreter"):
            outcome["battery"] = serve_battery()
    except BaseException as error:
        outcome = {"failed": f"{type(error).__name__}: {error}"}
    os.write(news, json.dumps({"ended": name, **outcome}).encode() + b"\n")


def main(count: int, rounds: int) -> int:
    """Start `count` interpreters and threads, let all of them go at once, print what they say."""
    news, news_in = os.pipe()
    gate_out, gate = os.pipe()
    loading = threading.Lock()

    def interpreter(name: str) -> None:
        program = (
            f"import sys; sys.path[:] = {sys.path!r}\n"
            f"import isolation; isolation.take_part({name!r}, {rounds}, {news_in}, {gate_out})"
        )
        loading.acquire()
        try:
            _native.run_interpreter(program)
        except RuntimeError as error:
            print(json.dumps({"failed": str(error)}), flush=True)
            os._exit(1)

    def thread(name: str) -> None:
        take_part(name, rounds, news_in, gate_out)

    threads = [
        threading.Thread(target=kind, args=(f"{kind.__name__}-{number}",))
        for kind in (interpreter, thread)
        for number in range(count)
    ]
    for one in threads:
        one.start()
    loaded = ended = 0
    with open(news, encoding="ascii") as lines:
        while ended < len(threads):
            line = json.loads(lines.readline())
            print(json.dumps(line), flush=True)
            ended += "ended" in line
            if "loaded" in line:
                loaded += 1
                if line["loaded"].startswith("interpreter"):
                    loading.release()
                if loaded == len(threads):
                    os.close(gate)
    for one in threads:
        one.join(SECONDS)
    sys.stdout.flush()
    os._exit(0)  # No interpreter is destroyed.


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2])))
