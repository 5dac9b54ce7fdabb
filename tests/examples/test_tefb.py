"""TEFB over ODBC, on SQLite and on a real PostgreSQL, and the same suite as an ASGI application."""

from __future__ import annotations

import concurrent.futures
import contextlib
import html.parser
import os
import pathlib
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
import serving

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(serving.PEER != "ppserver", reason="an API of ppserver"),
]

EXAMPLES = serving.ROOT / "examples"
# A free-threaded interpreter is to stay without its GIL, whatever is imported.
GIL_OFF = {"PYTHON_GIL": "0"} if serving.FREE_THREADED else {}
FORTUNES = 13
JAPANESE = "フレームワークのベンチマーク"
SCRIPT = '<script>alert("This should not be displayed in a browser alert box.");</script>'


def tool(folder: pathlib.Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    """``python -m examples.tefb_db`` in a folder."""
    return subprocess.run(
        [sys.executable, "-m", "examples.tefb_db", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=serving.MUST_SECONDS,
        env={**serving._environment(folder, GIL_OFF), **env},
        check=False,
    )


def exported(output: str) -> dict[str, str]:
    """What the tool says to export."""
    found = dict(re.findall(r"^  export (\w+)=(.*)$", output, re.MULTILINE))
    return {name: value.strip("'") for name, value in found.items()}


class Database:
    """One that the tool has made, and how to reach it."""

    def __init__(self, kind: str, folder: pathlib.Path, postgres_folder: str = "") -> None:
        self.kind = kind
        self.folder = folder
        arguments = [kind]
        if kind == "postgresql":
            arguments += ["--admin", f"Server={postgres_folder};Uid=test;"]
        done = tool(folder, *arguments)
        assert done.returncode == 0, done.stderr
        again = tool(folder, *arguments)
        assert again.returncode == 0, again.stderr
        assert "filled world (10,001 rows) and fortune (12 rows)" in again.stdout
        assert "tefb.py" in done.stdout
        self.environment = exported(done.stdout)
        self.dsn = ""
        if kind == "postgresql":
            self.dsn = f"postgresql://benchmarkdbuser@/hello_world?host={postgres_folder}"

    @contextlib.contextmanager
    def connect(self) -> Iterator[Any]:
        """By a library of its own, not by ODBC."""
        if self.kind == "sqlite":
            import sqlite3

            with contextlib.closing(sqlite3.connect(self.folder / "hello_world")) as connection:
                yield connection
        else:
            import psycopg

            with psycopg.connect(self.dsn) as connection:
                yield connection

    def numbers(self) -> dict[int, int]:
        with self.connect() as connection:
            found = connection.execute("SELECT id, randomNumber FROM world").fetchall()
        return dict(found)


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Database:
    serving.require("pyodbc", "numpy", "h11")
    folder = tmp_path_factory.mktemp(request.param)
    if tool(folder, request.param, "--driver", "").stderr.startswith("tefb_db: error: there is no"):
        pytest.skip("the ODBC driver is not installed (apt-get install libsqliteodbc)")
    if request.param == "sqlite":
        return Database("sqlite", folder)
    serving.require("psycopg")
    return Database("postgresql", folder, request.getfixturevalue("postgres_folder"))


class Site:
    """A form of the suite that is served from a database."""

    def __init__(self, server: serving.Server, database: Database, form: str) -> None:
        self.server = server
        self.database = database
        self.form = form
        self.url = f"http://127.0.0.1:{server.port}"

    def get(self, path: str) -> httpx.Response:
        answer = serving.get(f"{self.url}/{path}")
        assert answer.status_code == 200, answer.text
        return answer


def start(database: Database, form: str, **env: str) -> serving.Server:
    """Two contexts. Modules without support for it would switch the GIL on: kept off."""
    settings = {
        **database.environment,
        "PPSERVER_BIND": "127.0.0.1:0",
        "PPSERVER_CORES": "2",
        "PPSERVER_THREADS": "8",
        "PPSERVER_CONTEXTS": os.environ.get("TEST_PLACE", "auto").replace("interpreters", "auto"),
        "PPSERVER_ACCESS_LOG": "false",
        **GIL_OFF,
        **({"TEFB_DSN": database.dsn} if database.dsn else {}),
        **env,
    }
    environ = serving.script_environment(database.folder, settings)
    command = [str(EXAMPLES / "tefb.py")]
    if form == "asgi":
        command = ["-m", "ppserver", "tefb_asgi:make()", "--app-dir", str(EXAMPLES)]
    elif form == "command":
        command = ["-m", "ppserver", "tefb.py", "--app-dir", str(EXAMPLES)]
    return serving.Server([sys.executable, *command], environ, database.folder)


@pytest.fixture(scope="module", params=["program", "command", "asgi"])
def site(request: pytest.FixtureRequest, database: Database) -> Iterator[Site]:
    if request.param == "asgi":
        serving.require("starlette", "psycopg_pool")
    server = start(database, request.param)
    os_folder = os.getcwd()
    os.chdir(database.folder)
    try:
        server.wait_started()
        yield Site(server, database, request.param)
    except BaseException:
        server.kill()
        server.wait()
        raise
    finally:
        os.chdir(os_folder)
    server.stop()


class Table(html.parser.HTMLParser):
    """The rows of the page of fortunes, as a browser reads them."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.rows: list[list[str]] = []
        self.tags: set[str] = set()
        self.inside = False

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.add(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
            self.inside = True

    def handle_endtag(self, tag: str) -> None:
        self.inside = self.inside and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.rows[-1][-1] += data


def check_world(row: dict[str, int]) -> None:
    assert list(row) == ["id", "randomNumber"]
    assert 1 <= row["id"] <= 10_000
    assert 1 <= row["randomNumber"] <= 10_000


# ---- what TechEmpower's requirements say of each answer ----


def test_json_and_plaintext(site: Site) -> None:
    answer = site.get("json")
    assert answer.json() == {"message": "Hello, World!"}
    assert answer.headers["content-type"] == "application/json"
    answer = site.get("plaintext")
    assert answer.content == b"Hello, World!"
    assert answer.headers["content-type"].startswith("text/plain")
    for name in ("server", "date", "content-length"):
        assert answer.headers[name]


def test_fortunes(site: Site) -> None:
    answer = site.get("fortunes")
    assert answer.headers["content-type"].lower() == "text/html; charset=utf-8"
    assert answer.text.startswith("<!DOCTYPE html>")
    table = Table()
    table.feed(answer.content.decode("utf-8"))
    assert table.rows[0] == ["id", "message"]
    rows = table.rows[1:]
    assert len(rows) == FORTUNES
    assert "script" not in table.tags
    assert [row[1] for row in rows] == sorted(row[1] for row in rows)
    assert rows[0] == ["11", SCRIPT]
    assert rows[-1] == ["12", JAPANESE]
    assert ["0", "Additional fortune added at request time."] in rows
    assert "&lt;script&gt;" in answer.text


def test_db(site: Site) -> None:
    answer = site.get("db")
    assert answer.headers["content-type"] == "application/json"
    check_world(answer.json())
    assert len({site.get("db").json()["id"] for _ in range(10)}) > 5


@pytest.mark.parametrize(
    ("asked", "count"),
    [("", 1), ("queries=", 1), ("queries=foo", 1), ("queries=0", 1), ("queries=-3", 1)]
    + [("queries=3", 3), ("queries=500", 500), ("queries=501", 500), ("queries=1e3", 1)],
)
def test_counts_are_clamped(site: Site, asked: str, count: int) -> None:
    rows = site.get(f"queries?{asked}").json()
    assert len(rows) == count
    for row in rows:
        check_world(row)
    numbers = site.database.numbers()
    rows = site.get(f"updates?{asked}").json()
    assert len(rows) == count
    for row in rows:
        check_world(row)
    now = site.database.numbers()
    changed = {row["id"]: row["randomNumber"] for row in rows}
    assert now == {**numbers, **changed}


def test_eight_clients_update_at_once(site: Site) -> None:
    """None is refused, none waits for ever, and each row has what one of them has written."""
    before = site.database.numbers()

    def client(number: int) -> list[dict[str, int]]:
        rows = []
        with serving.client(site.url) as own:
            for turn in range(12):
                answer = own.get(f"/updates?queries={5 + 20 * (turn % 2)}")
                assert answer.status_code == 200, answer.text
                rows += answer.json()
                assert own.get("/queries?queries=5").status_code == 200
        return rows

    with concurrent.futures.ThreadPoolExecutor(8) as clients:
        written = [row for rows in clients.map(client, range(8)) for row in rows]
    assert len(written) == 8 * 12 * 15
    after = site.database.numbers()
    allowed: dict[int, set[int]] = {}
    for row in written:
        allowed.setdefault(row["id"], set()).add(row["randomNumber"])
    for number, value in after.items():
        assert value in allowed.get(number, {before[number]})


def test_nothing_is_left_behind(site: Site) -> None:
    """Descriptors and sessions after two thousand requests as after two hundred (the long form of
    the suite takes ten thousand)."""
    more = 10_000 if "TEST_MORE" in os.environ else 2_000

    def requests(count: int) -> None:
        with serving.client(site.url) as own:
            for _ in range(count // 4):
                for path in ("db", "queries?queries=2", "updates?queries=2", "fortunes"):
                    assert own.get(f"/{path}").status_code == 200

    def all_clients(count: int) -> None:
        with concurrent.futures.ThreadPoolExecutor(4) as clients:
            list(clients.map(requests, [count // 4] * 4))

    def sessions() -> int:
        if site.database.kind == "sqlite":
            return 0
        query = "SELECT count(*) FROM pg_stat_activity WHERE datname = 'hello_world'"
        with site.database.connect() as connection:
            return int(connection.execute(query).fetchone()[0])

    all_clients(400)
    descriptors, memory, sessions_then = count_fds(site), site.server.memory_bytes(), sessions()
    all_clients(more)
    assert count_fds(site) <= descriptors + 16 * 3  # A thread more may have come to serve.
    assert sessions() <= max(sessions_then, 2 * 8 + 4)
    if "TEST_SANITIZER" not in os.environ:  # AddressSanitizer keeps what is freed for a while.
        assert site.server.memory_bytes() < memory + 40_000_000


def count_fds(site: Site) -> int:
    pids = [site.server.pid, *serving.descendants(site.server.pid)]
    return sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in pids)


# ---- what is TEFB's own ----


@pytest.fixture
def odbc_site(site: Site) -> Site:
    if site.form == "asgi":
        pytest.skip("routes of the program of the parallel API")
    return site


def test_other_routes(odbc_site: Site) -> None:
    rows = odbc_site.get("fortunes_raw").json()
    assert len(rows) == FORTUNES
    assert [12, JAPANESE] in rows
    assert odbc_site.get("hello").text == "Hello, World!"
    assert odbc_site.get("hello/%C3%A9").text == "Hello, é!"
    assert odbc_site.get("elapsed").json()["elapsed"] >= 0
    stats = odbc_site.get("stats").json()
    assert list(stats) == ["system", "server", "memory", "contexts"]
    assert stats["contexts"]["active_contexts"] == 2
    assert stats["server"]["clients_connected"] >= 1


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/db", 405),
        ("BREW", "/db", 501),
        ("GET", "/nothing", 404),
        ("GET", "/%00", 400),
        ("GET", "/../../etc/passwd", 404),
        ("GET", "/%2e%2e/%2e%2e/etc/passwd", 404),
        ("GET", "/hello/%ff", 400),
        ("GET", "/queries?queries=%ff", 400),
        ("GET", "/queries?" + "q" * 9000, 414),
        ("GET", "/queries?queries=" + "9" * 5000, 200),
    ],
)
def test_bad_input(odbc_site: Site, method: str, path: str, status: int) -> None:
    import http.client

    connection = http.client.HTTPConnection(
        "127.0.0.1", odbc_site.server.port, timeout=serving.MUST_SECONDS
    )
    with contextlib.closing(connection):
        connection.putrequest(method, path, skip_accept_encoding=True)
        connection.endheaders()
        answer = connection.getresponse()
        text = answer.read().decode()
    assert answer.status == status
    assert "Traceback" not in text
    assert odbc_site.get("hello").text == "Hello, World!"


def test_a_connection_that_is_lost_is_made_anew(odbc_site: Site) -> None:
    if odbc_site.database.kind == "sqlite":
        pytest.skip("there is no server that could end it")
    odbc_site.get("db")
    with odbc_site.database.connect() as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = 'hello_world' AND pid <> pg_backend_pid()"
        )
    for _ in range(20):
        odbc_site.get("db")


Break = Callable[[pathlib.Path, dict[str, str]], None]


def no_driver(folder: pathlib.Path, environment: dict[str, str]) -> None:
    (folder / "odbc" / "odbcinst.ini").write_text("")


def no_tables(folder: pathlib.Path, environment: dict[str, str]) -> None:
    (folder / "hello_world").unlink()


def no_server(folder: pathlib.Path, environment: dict[str, str]) -> None:
    environment["TEFB_CONNECT"] = "Driver={SQL Server};Server=/nowhere;Database=x;Uid=y;Pwd=secret;"


@pytest.mark.parametrize(
    ("kind", "spoil", "message"),
    [
        ("sqlite", no_driver, "there is no such ODBC driver: python -m examples.tefb_db sqlite"),
        ("sqlite", no_tables, "no table of that name: python -m examples.tefb_db sqlite"),
        ("postgresql", no_server, "the database server does not answer: is it running?"),
    ],
)
def test_a_database_that_cannot_be_had(
    kind: str, spoil: Break, message: str, tmp_path: pathlib.Path, request: pytest.FixtureRequest
) -> None:
    serving.require("pyodbc", "numpy", "h11", "psycopg")
    folder = request.getfixturevalue("postgres_folder") if kind == "postgresql" else ""
    database = Database(kind, tmp_path, folder)
    spoil(tmp_path, database.environment)
    here = os.getcwd()
    os.chdir(tmp_path)
    server = start(database, "program")
    try:
        server.wait_started()
        for _ in range(3):
            answer = serving.get(f"http://127.0.0.1:{server.port}/db")
            assert answer.status_code == 500
            assert "secret" not in answer.text
        assert serving.get(f"http://127.0.0.1:{server.port}/json").status_code == 200
        server.wait_for_log(re.escape(message))
        assert "secret" not in server.log
        assert "Traceback" not in server.log
        server.allow("database: ")
        server.stop()
    except BaseException:
        server.kill()
        server.wait()
        raise
    finally:
        os.chdir(here)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sqlite", "--driver", "/nowhere.so"], "cannot connect to driver={SQL Server}"),
        (
            ["postgresql", "--admin", "Server=/nowhere;Uid=test;Pwd={se;cret};"],
            "Is the server there, and running?",
        ),
    ],
)
def test_the_tool_says_what_is_wrong(
    arguments: list[str], message: str, tmp_path: pathlib.Path
) -> None:
    serving.require("pyodbc")
    done = tool(tmp_path, *arguments)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert "cret" not in done.stderr


def test_a_file_that_is_no_database(tmp_path: pathlib.Path) -> None:
    serving.require("pyodbc")
    (tmp_path / "hello_world").write_text("no database " * 1000)
    done = tool(tmp_path, "sqlite")
    assert done.returncode == 1
    assert done.stderr.startswith("tefb_db: error: ")
    assert "Traceback" not in done.stderr


def test_help_of_the_tool(tmp_path: pathlib.Path) -> None:
    assert "sqlite" in tool(tmp_path, "--help").stdout
    assert "--admin" in tool(tmp_path, "postgresql", "--help").stdout
    assert tool(tmp_path).returncode == 2


def test_cheating(tmp_path: pathlib.Path) -> None:
    serving.require("pyodbc", "numpy", "h11")
    settings = {"PPSERVER_BIND": "127.0.0.1:0", "PPSERVER_CORES": "1", **GIL_OFF}
    environ = serving.script_environment(tmp_path, settings)
    server = serving.Server([sys.executable, str(EXAMPLES / "tefb.py"), "cheat"], environ, tmp_path)
    with serving.stopping(server):
        server.wait_started()
        with serving.client(f"http://127.0.0.1:{server.port}") as client:
            for _ in range(3):
                assert client.get("/anything").text == "Hello, World!"
