"""What an import opens is never shared by contexts: disposed of, or opened by each of them."""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import pathlib
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
import serving

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(serving.PEER != "ppserver", reason="how ppserver loads an application"),
]

Start = Callable[..., serving.Server]
EACH = "each context imports it for itself"
SHARED = "left what forked contexts share or lack"


def answers(server: serving.Server, count: int, path: str = "/{}") -> dict[int, httpx.Response]:
    """From many connections at once."""
    with (
        serving.client(server.url, limits=httpx.Limits(max_keepalive_connections=0)) as client,
        concurrent.futures.ThreadPoolExecutor(16) as threads,
    ):
        found = threads.map(lambda number: client.get(path.format(number)), range(1, count))
        return dict(enumerate(found, 1))


def check_heroes(server: serving.Server) -> None:
    for number, response in answers(server, 300, "/heroes/{}").items():
        assert response.status_code == 200
        assert response.json()["number"] == number
        assert response.json()["name"] == f"hero {number}"


@pytest.mark.parametrize("place", ["processes", "threads"])
def test_the_tutorials_engine(postgres: str, tmp_path: pathlib.Path, place: str) -> None:
    serving.require("fastapi", "sqlalchemy", "psycopg")
    env = {"TEST_DATABASE": postgres.replace("postgresql:", "postgresql+psycopg:")}
    app = "sql_tutorial:app"
    with serving.running(app, tmp_path, contexts=2, place=place, env=env) as server:
        check_heroes(server)
        assert server.records() == ["import"], "the engine was disposed of"
        assert EACH not in server.log
        assert SHARED not in server.log


def test_a_connection_that_is_held(postgres: str, tmp_path: pathlib.Path) -> None:
    """What is in use cannot be disposed of. One context: the tables are made by the import."""
    serving.require("fastapi", "sqlalchemy", "psycopg")
    env = {
        "TEST_DATABASE": postgres.replace("postgresql:", "postgresql+psycopg:"),
        "TEST_HELD": "1",
    }
    app = "sql_tutorial:app"
    with serving.running(app, tmp_path, place="processes", env=env) as server:
        check_heroes(server)
        line = server.wait_for_log(rf".*{EACH}.*")[0]
        assert re.search(r"a connection to \S+PGSQL\.\d+ \(in sql_tutorial\.\w+\)", line)
        assert server.records() == ["import"] * 2


@dataclasses.dataclass(frozen=True)
class Case:
    """What `opens.py` opens by which modules, and what is decided: to load the application once,
    with nothing found or all of it closed, or by each context, with a line that names it."""

    what: str
    modules: tuple[str, ...]
    named: str = ""  # in the line; "": loaded once
    service: str = ""  # of `echoing.py`
    long: bool = False  # only in make test-all, where all of these modules are installed

    def __str__(self) -> str:
        return self.what


PG = r"a connection to \S+PGSQL\.\d+"
CASES = [
    Case("async_sqlalchemy", ("sqlalchemy", "asyncpg", "greenlet")),
    Case("django", ("django", "psycopg")),
    Case("redis", ("redis",)),
    Case("requests", ("requests", "urllib3"), service="http"),
    Case("queue", (), long=True),
    Case("duckdb_memory", ("duckdb",), long=True),
    Case("duckdb_reading", ("duckdb",), long=True),
    Case("psycopg", ("psycopg",), rf"{PG} \(in opens\.connection\)", long=True),
    Case("psycopg2", ("psycopg2",), rf"{PG} \(in opens\.connection\)"),
    Case("psycopg_pool", ("psycopg_pool", "psycopg"), r"thread pool-1\S* \(in opens\.pool\)"),
    Case("asyncpg", ("asyncpg",), rf"event loop \(epoll\) .*{PG} \(in opens\.pool\)"),
    Case("asyncpg_run", ("asyncpg",), rf"{PG} \(in opens\.connection\)", long=True),
    Case("sqlite", (), r"the database file \S+/shop\.data \(in opens\.db\)"),
    Case("listener", (), r"thread \S+ \(_monitor\) \(in opens\.listener\)"),
    Case("a2wsgi", ("a2wsgi",), r"an event loop \(epoll\) \(in opens\.middleware\)"),
    Case("httpx", ("httpx",), r"to 127\.0\.0\.1:\d+ \(in opens\.client\)", "http", long=True),
    Case("pool", (), r"a pipe.*thread \S+ \(_handle_workers\) \(in opens\.pool\)", long=True),
    Case(
        "lmdb",
        ("lmdb",),
        r"the database file \S+/shop/data\.mdb \(in opens\.environment\)",
        long=True,
    ),
    Case("pymongo", ("pymongo",), r"thread pymongo\S+ \(in opens\.mongo\)", long=True),
    Case("grpc", ("grpc",), r"an event loop \(epoll\).*native thread \w+", "grpc", long=True),
    Case(
        "opentelemetry",
        ("opentelemetry.sdk",),
        r"thread OtelBatchSpanRecordProcessor \(in opens\.provider\)",
        long=True,
    ),
    Case(
        "opentelemetry_metrics",
        ("opentelemetry.sdk",),
        r"thread OtelPeriodicExportingMetricReader \(in opens\.metrics\)",
        long=True,
    ),
]


@contextlib.contextmanager
def service(kind: str) -> Iterator[str]:
    """Where an echo server listens: `echoing.py`."""
    command = [sys.executable, str(serving.APPS / "echoing.py"), kind]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.kill()


def environment(what: str, request: pytest.FixtureRequest) -> dict[str, str]:
    env = {"TEST_OPENS": what}
    if what == "redis":
        env["TEST_REDIS"] = request.getfixturevalue("redis")
    elif what in ("async_sqlalchemy", "django", "asyncpg", "asyncpg_run") or "psycopg" in what:
        env["TEST_POSTGRES"] = request.getfixturevalue("postgres")
    return env


@pytest.mark.parametrize("case", CASES, ids=str)
def test_each_library(
    request: pytest.FixtureRequest, tmp_path: pathlib.Path, more: bool, case: Case
) -> None:
    if case.long and not more:
        pytest.skip("runs in make test-all")
    # Of the others, psycopg2 alone has no wheel for some of the interpreters.
    (serving.optional if case.long or case.what == "psycopg2" else serving.require)(*case.modules)
    env = environment(case.what, request)
    with contextlib.ExitStack() as stack:
        if case.service:
            env["TEST_SERVICE"] = stack.enter_context(service(case.service))
        server = stack.enter_context(
            serving.running("opens:app", tmp_path, contexts=2, place="processes", env=env)
        )
        for number, response in answers(server, 60).items():
            assert response.status_code == 200
            assert int(response.text.split()[0]) == number
        if not case.named:
            assert server.records() == ["import"]
            assert SHARED not in server.log
            assert EACH not in server.log
        else:
            line = server.wait_for_log(rf".*{EACH}.*")[0]
            assert re.search(case.named, line)
            assert server.records() == ["import"] * 3
        if case.what == "listener":
            server.wait_for_log(r"(?m)^answered 59$")
        if case.what == "opentelemetry":
            for number in range(1, 60):
                server.wait_for_log(rf"(?m)^span asked-{number} of \d+$")


@pytest.mark.parametrize("cores", [1, 2])
def test_a_database_that_one_process_may_have(tmp_path: pathlib.Path, cores: int) -> None:
    """As DuckDB's files are, by their lock. One context can do with it."""
    path = tmp_path / "shop.duckdb"
    path.write_bytes(bytes(8) + b"DUCK" + bytes(100))
    options = write(
        tmp_path,
        f"file = open({str(path)!r}, 'r+b', buffering=0)\n"
        "def app(environ, start_response):\n"
        "    start_response('200 OK', [])\n    return [b'ok']\n",
    )
    options["args"] += ["--cores", str(cores)]
    server = serving.launch("shop:app", tmp_path, **options)
    with contextlib.ExitStack() as stack:
        if cores == 1:
            stack.enter_context(serving.stopping(server))
            server.wait_started()
            assert EACH in server.log
            assert serving.get(server.url).text == "ok"
        else:
            assert server.wait() == 3
            assert re.search(r"opened the database file \S+/shop\.duckdb .*one process", server.log)
            assert "hint: open it read-only, or serve with --contexts threads" in server.log


@pytest.mark.parametrize("place", ["processes", "threads"])
def test_a_file_of_duckdb(tmp_path: pathlib.Path, more: bool, place: str) -> None:
    if not more:
        pytest.skip("runs in make test-all")
    serving.optional("duckdb")
    env = {"TEST_OPENS": "duckdb"}
    server = serving.launch("opens:app", tmp_path, contexts=2, place=place, env=env)
    if place == "processes":
        assert server.wait() == 3
        assert re.search(r"shop\.duckdb \(in opens\.db\) for writing, which one", server.log)
        return
    with serving.stopping(server):
        server.wait_started()
        for number, response in answers(server, 60).items():
            assert int(response.text.split()[0]) == number


@pytest.mark.parametrize("what", ["psycopg_pool", "a2wsgi"])
def test_threads_share_it(
    request: pytest.FixtureRequest, tmp_path: pathlib.Path, what: str
) -> None:
    env = environment(what, request)
    serving.require(what)
    with serving.running("opens:app", tmp_path, contexts=2, place="threads", env=env) as server:
        for number, response in answers(server, 60).items():
            assert int(response.text.split()[0]) == number
        assert server.records() == ["import"]
        assert EACH not in server.log


def write(folder: pathlib.Path, text: str) -> dict[str, Any]:
    (folder / "shop.py").write_text(text)
    return {"contexts": 2, "place": "processes", "args": ["--app-dir", str(folder)]}


THREADED = """
import os, threading
import support
support.record("import")
end = threading.Event()
threading.Thread(target=end.wait, name="mine", daemon={daemon}).start()
def app(environ, start_response):
    start_response("200 OK", [])
    return [b"%d" % threading.active_count()]
"""


def with_support(options: dict[str, Any]) -> dict[str, Any]:
    return {**options, "env": {"PYTHONPATH": f"{serving.ROOT}:{serving.APPS}"}}


def test_once_is_obeyed_and_warned_about(tmp_path: pathlib.Path) -> None:
    options = with_support(write(tmp_path, THREADED.format(daemon=True)))
    options["args"] += ["--load", "once"]
    with serving.running("shop:app", tmp_path, **options) as server:
        assert re.search(rf"{SHARED}.*thread mine.*Open that in on_context_start\.", server.log)
        assert server.records() == ["import"]


def test_each_from_the_beginning_and_at_a_reload(tmp_path: pathlib.Path) -> None:
    options = with_support(write(tmp_path, THREADED.format(daemon=True)))
    options["args"] += ["--load", "each"]
    with serving.running("shop:app", tmp_path, **options) as server:
        assert (
            "each loads the application; "
            "data not frozen after load: each context has its own" in server.log
        )
        assert "WARNING" not in server.log
        assert server.records() == ["import"] * 2
        server.process.send_signal(signal.SIGHUP)
        server.wait_for_log("Reloaded: ")
        assert server.records() == ["import"] * 4
        assert serving.get(server.url).text != "1"


def test_a_reload_looks_again(tmp_path: pathlib.Path) -> None:
    harmless = "import threading\n" + THREADED.partition("end =")[0] + "def app(environ, start):\n"
    harmless += "    start('200 OK', [])\n    return [b'fine']\n"
    options = with_support(write(tmp_path, THREADED.format(daemon=True)))
    with serving.running("shop:app", tmp_path, **options) as server:
        assert EACH in server.log
        write(tmp_path, harmless)
        server.process.send_signal(signal.SIGHUP)
        server.wait_for_log("Reloaded: ")
        assert server.records() == ["import"] * 4, "once more, for both"
        serving.wait_until(lambda: len(serving.descendants(server.pid)) == 4, 60)
        assert serving.get(server.url).text == "fine"
        write(tmp_path, THREADED.format(daemon=True))
        server.process.send_signal(signal.SIGHUP)
        server.wait_for_log("(?s)Reloaded: .*Reloaded: ")
        assert server.records() == ["import"] * 7
        assert server.log.count(EACH) == 2


def test_told_to_end_while_contexts_import(tmp_path: pathlib.Path) -> None:
    options = with_support(
        write(
            tmp_path,
            "import time, support\nsupport.record('importing')\ntime.sleep(600)\n"
            "def app(environ, start_response): ...\n",
        )
    )
    options["args"] += ["--load", "each"]
    server = serving.launch("shop:app", tmp_path, **options)
    server.wait_for_record("importing", 2)
    server.process.terminate()
    assert server.wait(60) == 0
    server.check_log()


def test_a_program_that_gives_an_object_is_told(tmp_path: pathlib.Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import os, ppserver\n"
        "def app(environ, start_response):\n"
        "    start_response('200 OK', [])\n    return [b'ok']\n"
        "if __name__ == '__main__':\n"
        "    pipe = os.pipe()\n"
        "    ppserver.run(app, port=0, cores=2, contexts='processes')\n"
    )
    environ = serving.script_environment(tmp_path, {})
    server = serving.Server([sys.executable, str(program)], environ, tmp_path)
    with serving.stopping(server):
        server.wait_started()
        assert re.search(r"left what forked contexts share or lack.*: a pipe\.", server.log)


def test_a_thread_that_never_ends_does_not_hold_up_the_start(tmp_path: pathlib.Path) -> None:
    """The end is another matter: each context waits for its own."""
    options = with_support(write(tmp_path, THREADED.format(daemon=False)))
    server = serving.launch("shop:app", tmp_path, **options)
    try:
        server.wait_started()
        assert EACH in server.log
        assert serving.get(server.url).text != "1"
    finally:
        server.kill()
        server.wait()


def test_an_address_can_be_listened_on_once(tmp_path: pathlib.Path) -> None:
    """A server of metrics, say: it and its thread stay in the host."""
    options = write(
        tmp_path,
        "import socket, threading\n"
        "sock = socket.create_server(('127.0.0.1', 0))\n"
        "threading.Thread(target=sock.accept, name='metrics', daemon=True).start()\n"
        "def app(environ, start_response):\n"
        "    start_response('200 OK', [])\n    return [b'ok']\n",
    )
    with serving.running("shop:app", tmp_path, **options) as server:
        assert serving.get(server.url).text == "ok"
        holder = r" \(in shop\.sock\)"
        assert re.search(rf"{SHARED}.*listens on 127\.0\.0\.1:\d+{holder}", server.log)


def test_no_hook_fails_a_start_that_the_application_survives(tmp_path: pathlib.Path) -> None:
    """Django's database layer without settings, as error reporters import it."""
    serving.require("django")
    options = write(
        tmp_path,
        "import os, django.db\npipe = os.pipe()\n"
        "def app(environ, start_response):\n"
        "    start_response('200 OK', [])\n    return [b'ok']\n",
    )
    options["args"] += ["--load", "once"]
    with serving.running("shop:app", tmp_path, **options) as server:
        assert serving.get(server.url).text == "ok"
        assert re.search(rf"{SHARED}.*a pipe", server.log)


def test_shared_numbers_and_a_connection(tmp_path: pathlib.Path) -> None:
    options = write(
        tmp_path,
        "import os\nimport ppserver.shared\n"
        "hits = ppserver.shared.Counter()\npipe = os.pipe()\n"
        "def app(environ, start_response): ...\n",
    )
    server = serving.launch("shop:app", tmp_path, **options)
    assert server.wait() == 3
    assert "cannot make numbers that all contexts change" in server.log
    assert "on_context_start" in server.log
