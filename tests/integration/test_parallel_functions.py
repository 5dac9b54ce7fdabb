"""Functions of the parallel API while a server runs: the main thread, work, clients, numbers."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import serving
from parallel import program

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(serving.PEER != "ppserver", reason="an API of ppserver"),
]

Start = Callable[..., serving.Server]

SETUPS = [
    (1, "auto"),
    (2, "processes"),
    (2, "threads"),
    *([(2, "interpreters")] if sys.version_info >= (3, 13) else []),
]


def reserved() -> socket.socket:
    """A socket that nobody can connect to, and whose port nobody else gets: who names it may listen
    there."""
    sample = socket.socket()
    sample.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sample.bind(("127.0.0.1", 0))
    return sample


class Site:
    """The running program of tests/apps/functions.py."""

    def __init__(self, server: serving.Server, contexts: int, place: str) -> None:
        self.server = server
        self.contexts = contexts
        self.forked = place == "processes"
        self.shares = place not in ("processes", "interpreters")  # objects

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(
            "127.0.0.1", self.server.port, timeout=serving.MUST_SECONDS
        )

    def call(self, name: str, body: bytes = b"", **headers: str) -> Any:
        """What a method of the program answers."""
        with contextlib.closing(self.connect()) as connection:
            return ask(connection, name, body)


def ask(connection: http.client.HTTPConnection, name: str, body: bytes = b"") -> Any:
    connection.request("GET", f"/{name}", body=body or None)
    response = connection.getresponse()
    found = response.read()
    assert response.status == 200, found
    return json.loads(found)


@pytest.fixture(scope="module", params=SETUPS, ids=lambda setup: f"{setup[0]}-{setup[1]}")
def site(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    contexts, place = request.param
    held = {"TEST_ECHO_PORT": reserved(), "TEST_DEAD_PORT": reserved()}
    ports = {name: str(sample.getsockname()[1]) for name, sample in held.items()}
    server = serving.launch(
        "functions.py",
        tmp_path_factory.mktemp("functions"),
        contexts=contexts,
        place=place,
        args=["--no-access-log"],
        env=ports,
    )
    try:
        server.wait_started()
        server.allow(serving.EXPECTED)
        yield Site(server, contexts, place)
    except BaseException:
        server.kill()
        server.wait()
        raise
    finally:
        for sample in held.values():
            sample.close()
    server.stop()


# ---- the main thread ----


def test_functions_run_in_the_main_thread_of_the_parent(site: Site) -> None:
    first, pid, thread, context, loaded_by = site.call("count", b"3")
    assert pid == thread  # A process's first thread has its number.
    assert (context != pid) == site.forked
    assert pid == loaded_by
    second, again, *_ = site.call("count", b"3")
    assert (second - first, again) == (6, pid)


def test_without_waiting(site: Site) -> None:
    assert site.call("count_later") is None
    serving.wait_until(lambda: any(line.startswith("later ") for line in site.server.records()))


def test_what_main_thread_code_changes(site: Site) -> None:
    """Threads see it; others have what was there when they began."""
    now, *_ = site.call("count", b"1")
    assert site.call("state") == (now if site.shares else 0)


def test_what_they_raise_comes_back(site: Site) -> None:
    (name, text), (other, what) = site.call("fail")
    assert name == "ExpectedError"
    assert text.startswith(f"raised, {serving.EXPECTED}")
    assert serving.EXPECTED in what
    assert other == ("LocalError" if site.shares else "RuntimeError")
    site.server.wait_for_log("A function called in the main thread failed")


def test_arguments_of_megabytes(site: Site) -> None:
    assert site.call("large") == [3_000_000, True]


def test_what_cannot_be_asked_for_without_sharing(site: Site) -> None:
    late = site.call("decorated_late")
    if site.shares:
        assert isinstance(late, int)
        return
    assert "must be decorated before the contexts start" in late
    assert "Error" in site.call("unpicklable")


def test_many_threads_ask_at_once(site: Site) -> None:
    found = site.call("many_at_once")
    assert len(found) == 20
    assert len(set(found)) == 1


# ---- beside callbacks ----


@pytest.mark.parametrize(
    ("name", "body", "expected"),
    [
        ("work", b"x", [81, True]),
        ("work", b"", ["TypeError", True]),
        ("timer", b"", True),
        ("wait", b"", ["set", "TimeoutError"]),
        ("file_io", b"", [7, "ritte", "written"]),
        ("map", b"", [number * number for number in range(100)]),
        ("threads", b"", [True, True, True, True]),
        ("attributes", b"", 53),
    ],
)
def test_work(site: Site, name: str, body: bytes, expected: Any) -> None:
    assert site.call(name, body) == expected


def test_what_the_program_has_submitted_begins_once(site: Site) -> None:
    """Work before the contexts start, a timer with the first of them."""
    site.server.wait_for_record("timer [True]", 1)
    for _ in range(4):
        site.call("threads")
    assert site.server.records().count("timer [True]") == 1
    assert "cancelled" not in site.server.records()


def test_a_client_connects_once(site: Site) -> None:
    site.server.wait_for_record("client closed close", 1)
    records = site.server.records()
    assert sum(line.startswith("connected to ") for line in records) == 1
    assert "client got word" in records
    site.server.wait_for_record("refused True ConnectionRefusedError", 1)


# ---- numbers ----


def test_the_head_of_a_request(site: Site) -> None:
    with contextlib.closing(site.connect()) as connection:
        connection.request("GET", "/head?x=1", headers={"X-Some": "Thing"})
        head = connection.getresponse().read()
    assert head.startswith(b"GET /head?x=1 HTTP/1.1\r\n")
    assert head.endswith(b"\r\n\r\n")
    assert b"\r\nx-some: Thing\r\n" in head


def test_counters_cover_all_contexts(site: Site) -> None:
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(contextlib.closing(site.connect())) for _ in range(10)]
        for connection in connections:
            ask(connection, "threads")
        # Those of other tests may end about now.
        serving.wait_until(lambda: ask(connections[0], "stats")[0]["num_children"] == 10)
        counters, contexts, active, others = ask(connections[0], "stats")
        there, contexts_there = ask(connections[0], "stats_there")
    assert counters["clients_connected"] == counters["client_connected_count"] == 10
    assert counters["fd_accept_count"] == counters["retired_clients"] + 10
    assert counters["total_bytes_received"] > 10 * 20
    assert counters["total_bytes_sent"] > 10 * 20
    assert counters["accepts_posted"] == site.contexts
    assert counters["ioloops"] > 0
    assert counters["recvbuf_size"] > 0
    assert contexts["active_contexts"] == contexts["active_io_loops"] == site.contexts
    assert active[:2] == [site.contexts, site.contexts]
    assert others[0] >= 10
    assert others[1] >= 10
    assert others[2] is True
    for name in ("num_children", "accepts_posted"):
        assert there[name] == counters[name]
    assert there["fd_accept_count"] >= counters["fd_accept_count"]
    assert contexts_there["active_contexts"] == site.contexts


# ---- programs ----


def finish(code: str, *, timeout: float = 30) -> str:
    """What a program prints that ends by itself, without an error."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        timeout=timeout,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    return done.stdout


def test_a_program_of_work_alone_ends_with_it() -> None:
    code = """
import parallel
def more(result):
    print("result", result)
    if result < 3:
        parallel.submit_timer(0.01, lambda: result + 1, callback=more)
parallel.submit_work(lambda: 1, callback=more)
parallel.run()
print("over", parallel.active_count())
"""
    assert finish(code).split("\n")[:4] == ["result 1", "result 2", "result 3", "over 0"]


def test_a_program_of_a_client_alone_ends_with_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        code = f"""
import parallel
class Talk:
    def data_received(self, transport, data):
        print("got", data.decode(), transport.total_bytes_received)
        return b"thanks"
client = parallel.client("127.0.0.1", {listening.getsockname()[1]})
parallel.register(transport=client, protocol=Talk)
parallel.run()
print("over")
"""
        program = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", code],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        listening.settimeout(serving.MUST_SECONDS)
        peer, _ = listening.accept()
        with peer:
            peer.settimeout(serving.MUST_SECONDS)
            peer.sendall(b"hello")
            assert peer.recv(100) == b"thanks"
        output, _ = program.communicate(timeout=serving.MUST_SECONDS)
    assert output.split("\n")[:2] == ["got hello 5", "over"]
    assert program.returncode == 0


BACKGROUND = """
import json, socket, threading, urllib.request
import parallel

class Http:
    http11 = True
    def main(self, transport, data):
        return f"{where()} {threading.current_thread() is threading.main_thread()}"
    def plain(self, transport, data):
        return b"hello"

@parallel.call_from_main_thread_and_wait
def where():
    return threading.current_thread() is threading.main_thread()

def get(path):
    url = f"http://127.0.0.1:{server.port}{path}"
    with urllib.request.urlopen(url, timeout=60) as response:
        return response.read().decode()

server = parallel.server("127.0.0.1", 0)
parallel.register(transport=server, protocol=Http)
"""


def test_start_and_stop_within_a_program() -> None:
    code = (
        BACKGROUND
        + """
for _ in range(2):
    server.start()
    assert server.is_started
    assert get("/plain") == "hello"
    assert server.fd_accept_count >= 1
    try:
        server.start()
    except RuntimeError as error:
        print(error)
    other = parallel.server("127.0.0.1", server.port)
    parallel.register(transport=other, protocol=Http)
    try:
        other.start()
    except Exception as error:
        print(type(error).__name__)
    server.stop()
    server.stop()
    with socket.create_server(("127.0.0.1", server.port)):
        print("free")
print(threading.active_count())
"""
    )
    expected = ["it has been started", "BindError", "free"] * 2
    assert finish(code).split("\n")[:6] == expected


def test_a_program_that_has_started_a_server_ends() -> None:
    assert "end" in finish(BACKGROUND + "server.start()\nprint(get('/plain'), 'end')")


def test_start_needs_a_protocol() -> None:
    code = (
        "import parallel\ntry:\n    parallel.server().start()\nexcept RuntimeError as e: print(e)"
    )
    assert "parallel.register() comes first" in finish(code)


def test_passes_of_a_program_with_a_loop_of_its_own() -> None:
    code = (
        BACKGROUND
        + """
found = []
def client():
    found.append(get("/main"))
    server.shutdown_server()
parallel.submit_timer(0.05, client)
passes = 0
while parallel.run_once():
    passes += 1
print(found, passes > 0)
"""
    )
    assert "['True False'] True" in finish(code)


def test_inside_an_event_loop_the_main_thread_is_asked_by_it() -> None:
    code = (
        "import asyncio\n"
        + BACKGROUND
        + """
async def main():
    server.start()
    print(await asyncio.to_thread(get, "/main"))
    server.stop()
asyncio.run(main())
"""
    )
    assert "True False" in finish(code)


def test_every_name_of_the_api_is_there() -> None:
    """As the reference lists them."""
    import parallel

    text = (serving.ROOT / "docs" / "reference" / "parallel.md").read_text()
    for name in parallel.__all__:
        assert getattr(parallel, name) is not None
        assert re.search(rf"(`|parallel\.){name}\b", text), name
    assert program.__all__ == sorted(program.__all__)


SLOW = f"""
import os, sys, threading, time
import parallel
sys.path.append({str(serving.ROOT / "tests" / "apps")!r})
from support import record

seen = []

@parallel.call_from_main_thread_and_wait
def slow(seconds):
    record("begun")
    time.sleep(seconds)
    seen.append(seconds)
    return len(seen)

class Http:
    http11 = True
    def slow(self, transport, data):
        return str(slow(float(data)))
    def pid(self, transport, data):
        return str(os.getpid())

parallel.register(transport=parallel.server("127.0.0.1", 0), protocol=Http)
parallel.run(cores=2, contexts=PLACE)
"""


@pytest.mark.parametrize("place", ["processes", "threads"])
def test_stopping_while_a_callback_waits_for_the_main_thread(run: Start, place: str) -> None:
    server = run(SLOW.replace("PLACE", repr(place)))
    server.wait_started()
    site = Site(server, 2, place)
    with contextlib.closing(site.connect()) as connection:
        connection.request("GET", "/slow", body=b"0.3")
        server.wait_for_record("begun")
        server.process.send_signal(signal.SIGTERM)
        assert connection.getresponse().read() == b"1"
    assert server.wait() == 0


def test_a_context_that_is_killed_while_it_waits_takes_nobody_along(run: Start) -> None:
    server = run(SLOW.replace("PLACE", "'processes'"))
    server.wait_started()
    site = Site(server, 2, "processes")
    with contextlib.closing(site.connect()) as connection:
        pid = ask(connection, "pid")
        connection.request("GET", "/slow", body=b"0.3")
        server.wait_for_record("begun")
        os.kill(pid, signal.SIGKILL)
        with pytest.raises((ConnectionError, http.client.BadStatusLine)):
            connection.getresponse()
    server.wait_for_log("replacing it")
    found = [site.call("slow", b"0") for _ in range(4)]
    assert found == [2, 3, 4, 5]
    server.allow("expected")
    server.stop()


# ---- what goes on beside a server that is started and stopped ----


def test_start_does_not_wait_for_timers_and_waits() -> None:
    code = (
        BACKGROUND
        + """
def again():
    parallel.submit_timer(3600, again)
again()
never = parallel.submit_wait(threading.Event(), print)
for _ in range(2):
    server.start()
    assert get("/plain") == "hello"
    server.stop()
assert never.cancel()
print("over")
"""
    )
    assert "over" in finish(code)


def test_stopping_one_server_leaves_the_other_its_main_thread() -> None:
    code = (
        BACKGROUND
        + """
other = parallel.server("127.0.0.1", 0)
parallel.register(transport=other, protocol=Http)
server.start()
other.start()
print(parallel.active_contexts() >= 2)
other.stop()
found = []
client = threading.Thread(target=lambda: found.append(get("/main")))
client.start()
while client.is_alive():
    parallel.run_once(seconds=0.01)
print(found)
server.stop()
"""
    )
    assert finish(code).splitlines() == ["True", "['True False']"]


def test_stop_does_what_a_callback_waits_for() -> None:
    """The request that asks the main thread ends, although that has come to stop the server."""
    code = (
        BACKGROUND
        + """
server.start()
found = []
def ask():
    with socket.create_connection(("127.0.0.1", server.port), 60) as peer:
        peer.sendall(b"GET /main HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n")
        sent.set()
        found.append(peer.recv(4096))
sent = threading.Event()
client = threading.Thread(target=ask)
client.start()
sent.wait()
while not server.total_bytes_received:
    pass
server.stop()
client.join()
print(found[0].split(b"\\r\\n")[0], found[0].endswith(b"True False"))
"""
    )
    assert "b'HTTP/1.1 200 OK' True" in finish(code)


def test_passes_end_when_a_callback_ends_the_server() -> None:
    code = (
        BACKGROUND
        + """
server.start()
server.shutdown_server()
while parallel.run_once(seconds=0.01):
    pass
assert not server.is_started
server.start()
print(get("/plain"))
server.stop()
"""
    )
    assert "hello" in finish(code)


def test_a_wait_that_is_withdrawn_never_runs() -> None:
    code = """
import threading
import parallel
event, ran = threading.Event(), []
waits = [parallel.submit_wait(event, ran.append, (number,)) for number in range(3)]
def withdraw():
    waits[1].cancel()
    event.set()
threading.Timer(0.05, withdraw).start()
parallel.run()
print(sorted(ran))
"""
    assert finish(code) == "[0, 2]\n"


def test_a_client_of_a_name_that_can_be_none() -> None:
    code = """
import parallel
class Refused:
    def connection_error(self, transport, exc):
        print(type(exc).__name__)
name = "x" * 70 + ".example"
parallel.register(transport=parallel.client(name, 80), protocol=Refused)
parallel.run()
"""
    assert "Error" in finish(code)


EXITING = """
import sys, threading
import parallel
sys.path.append(APPS)
from support import record

@parallel.call_from_main_thread_and_wait
def leave():
    sys.exit(3)

@parallel.call_from_main_thread_and_wait
def spread():
    return parallel.map(lambda number: number * 2, range(5))

class Http:
    http11 = True
    def leave(self, transport, data):
        try:
            leave()
        except RuntimeError as error:
            return '"%s"' % error
    def spread(self, transport, data):
        return {"found": spread()}

event = threading.Event()
for _ in range(3):
    parallel.submit_wait(event, record, ("set",))
parallel.submit_timer(0.05, event.set)
parallel.register(transport=parallel.server("127.0.0.1", 0), protocol=Http)
parallel.run(cores=2, contexts="processes")
"""


def test_a_function_that_exits_does_not_end_the_host(run: Start) -> None:
    """And waits that began before the fork are as good as others."""
    server = run(EXITING.replace("APPS", repr(str(serving.ROOT / "tests" / "apps"))))
    server.wait_started()
    server.allow("SystemExit")
    site = Site(server, 2, "processes")
    for _ in range(3):
        assert "SystemExit" in site.call("leave")
    assert site.call("spread") == {"found": [0, 2, 4, 6, 8]}
    server.wait_for_record("set", 3)
    assert "took its contexts along" not in server.log
    assert "replacing it" not in server.log
    server.stop()
