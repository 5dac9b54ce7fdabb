"""Start the server under test as a subprocess, find its address, read its log, stop it.

The server is normally ``python -m ppserver``. With ``PPSERVER_TEST_PEER=uvicorn`` in the
environment the same tests run against uvicorn, an independent implementation of the same
interfaces: a test that fails there is a wrong test, unless it is marked ``peer_differs``.
"""

from __future__ import annotations

import contextlib
import http.client
import importlib
import importlib.util
import os
import pathlib
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import sysconfig
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType
from typing import Any

import httpx
import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
APPS = pathlib.Path(__file__).resolve().parent / "apps"
PEER = os.environ.get("PPSERVER_TEST_PEER", "ppserver")
# Where several contexts live when a test does not say: `TEST_PLACE=threads make test-python`.
PLACE = os.environ.get("TEST_PLACE", "auto")
# For tests of what contexts share, which interpreters do not.
SHARING = "processes" if PLACE == "interpreters" else None
FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))

# What an application under test puts into every exception that it raises on purpose.
EXPECTED = "expected by the test"

# How long to wait for what must happen: it costs only when it fails. An interpreter under
# ThreadSanitizer takes ten times as long to import anything.
MUST_SECONDS = 180.0 if os.environ.get("TEST_SANITIZER") == "thread" else 60.0

# Modules without a wheel for free-threaded builds, or that switch the GIL back on there.
_NO_FREE_THREADED_WHEEL = {
    *("uvloop", "fastapi", "pydantic", "pydantic_core", "asyncpg", "psycopg", "pyodbc"),
    *("greenlet", "litestar"),
}

# And those without one for the newest version of Python, here 3.15.
_NO_WHEEL_YET = {"litestar"} if sys.version_info >= (3, 15) else set()

# Applications with such modules: a server that is given one does not start.
_REFUSED_BY_INTERPRETERS = {"fastapi_app"}

_ADDRESS = re.compile(r"running on (?:https?|tcp)://(?P<host>\[[^\]]+\]|[^:\s]+):(?P<port>\d+)")
_TRACEBACK = re.compile(r"Traceback \(most recent call last\):")
_TROUBLE = (
    "AddressSanitizer",
    "LeakSanitizer",
    "ThreadSanitizer",
    "runtime error:",
    "Fatal Python error",
    "Assertion",
    "Exception ignored in",
    "was never retrieved",
    "was never awaited",
    "Task was destroyed",
    "ResourceWarning: unclosed",
    "RuntimeWarning",
)


def require(*modules: str) -> None:
    """A missing module fails the test; it skips only where the module has no wheel."""
    for name in modules:
        try:
            if not FREE_THREADED:
                importlib.import_module(name)
            elif not is_installed(name):
                raise ImportError("it is not installed")
        except ImportError as exc:
            if FREE_THREADED and name in _NO_FREE_THREADED_WHEEL:
                pytest.skip(
                    f"{name} has no wheel for free-threaded builds", allow_module_level=True
                )
            if name in _NO_WHEEL_YET:
                pytest.skip(f"{name} has no wheel for this Python yet", allow_module_level=True)
            pytest.fail(f"{name} is needed by this test and cannot be imported: {exc}")


def is_installed(name: str) -> bool:
    """Does not import it: on free-threaded builds some packages switch the GIL back on."""
    return importlib.util.find_spec(name) is not None


def optional(*names: str) -> None:
    """Skip where a package is not installed that has no wheel everywhere."""
    for name in names:
        if not is_installed(name):
            pytest.skip(f"{name} is not installed")


def load_app(name: str) -> ModuleType:
    """Import an application into the tests, to read its tables."""
    sys.path.insert(0, str(APPS))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(APPS))


def descendants(pid: int) -> list[int]:
    """The process and everything it started, parents first."""
    found = [pid]
    for one in found:
        with contextlib.suppress(OSError):
            for thread in os.listdir(f"/proc/{one}/task"):
                text = pathlib.Path(f"/proc/{one}/task/{thread}/children").read_text()
                found.extend(int(child) for child in text.split())
    return found


def children(pid: int) -> list[int]:
    """Children of a process with one thread."""
    with contextlib.suppress(OSError):
        text = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text()
        return [int(child) for child in text.split()]
    return []


def hosts(supervisor: int) -> list[int]:
    """Host processes, which bear that name."""
    return [pid for pid in children(supervisor) if _is_host(pid)]


def contexts(supervisor: int) -> list[int]:
    """Contexts that are processes: children of the supervisor like their host."""
    return [pid for pid in children(supervisor) if not _is_host(pid)]


def _is_host(pid: int) -> bool:
    try:
        return pathlib.Path(f"/proc/{pid}/comm").read_text() == "ppserver-host\n"
    except OSError:
        return False


def stacks(pid: int) -> str:
    """Where a process tree that hangs is, in C, where there is a gdb to say so."""
    found = []
    for one in descendants(pid) if shutil.which("gdb") else []:
        with contextlib.suppress(subprocess.TimeoutExpired):
            done = subprocess.run(
                ["gdb", "-p", str(one), "-batch", "-ex", "thread apply all backtrace 30"],
                capture_output=True,
                text=True,
                timeout=30,
                check=False,
            )
            frames = [line for line in done.stdout.splitlines() if line.startswith(("#", "Thr"))]
            found.append("\n".join([f"process {one}", *frames]))
    return "\n".join(found)


def memory_bytes(pid: int) -> int:
    """Proportional set size of a process tree: shared pages count once."""
    total = 0
    for one in descendants(pid):
        with contextlib.suppress(OSError):
            for line in pathlib.Path(f"/proc/{one}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
    return total


def wait_until(condition: Callable[[], Any], seconds: float = MUST_SECONDS, what: str = "") -> Any:
    """Poll for something that only another process can tell; bounded."""
    deadline = time.monotonic() + seconds
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() > deadline:
            pytest.fail(f"did not happen within {seconds:g} s: {what or condition}")
        time.sleep(0.01)


def exceptions_in(log: str) -> Iterator[str]:
    """The last line of every traceback in a log: ``Type: message``."""
    lines = log.splitlines()
    for index, line in enumerate(lines):
        if not _TRACEBACK.search(line):
            continue
        indent = len(line) - len(line.lstrip(" |+"))
        for candidate in lines[index + 1 :]:
            own = len(candidate) - len(candidate.lstrip(" |+"))
            if candidate.strip() and own <= indent:
                yield candidate.strip(" |+-")
                break
        else:
            yield "(a traceback without an end)"


# httpx loads the system's certificates for every client unless it gets a context; http needs none.
_NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def client(url: str = "", **options: Any) -> httpx.Client:
    options = {"timeout": MUST_SECONDS, "trust_env": False, "verify": _NO_TLS, **options}
    return httpx.Client(base_url=url, **options)


def async_client(url: str = "", **options: Any) -> httpx.AsyncClient:
    options = {"timeout": MUST_SECONDS, "trust_env": False, "verify": _NO_TLS, **options}
    return httpx.AsyncClient(base_url=url, **options)


def get(url: str, **options: Any) -> httpx.Response:
    """One request on a connection of its own."""
    with client() as one:
        return one.get(url, **options)


class Server:
    """One running server. Use `start`; `url`, `host` and `port` say where it listens."""

    def __init__(
        self, command: Sequence[str], env: dict[str, str], directory: pathlib.Path
    ) -> None:
        self.command = list(command)
        self.directory = directory
        self.host = ""
        self.port = 0
        self.allowed = [re.compile(re.escape(EXPECTED))]
        if PEER == "uvicorn":
            self.allow("sys:1: ResourceWarning: unclosed <socket")  # left by its supervisor
            self.allow("ResourceWarning: unclosed file")  # no close()
            self.allow("CancelledError")  # streams to clients that have gone end at its stop only
        self._lines: list[str] = []
        self._news = threading.Condition()
        self._ended = False
        self.process = subprocess.Popen(
            self.command,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=directory,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as stream:
            for raw in stream:
                with self._news:
                    self._lines.append(raw.decode("utf-8", "backslashreplace").rstrip("\n"))
                    self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    @property
    def log(self) -> str:
        with self._news:
            return "\n".join(self._lines)

    def wait_for_log(self, pattern: str, seconds: float = MUST_SECONDS) -> re.Match[str]:
        """Wait until the log has a match; fails when the server ends before."""
        found: list[re.Match[str]] = []

        def look() -> bool:
            match = re.search(pattern, "\n".join(self._lines))
            if match:
                found.append(match)
            return bool(match) or self._ended

        with self._news:
            self._news.wait_for(look, seconds)
        if not found:
            pytest.fail(
                f"the log has no {pattern!r} after {seconds:g} s or at its end:\n{self.log}"
            )
        return found[0]

    def wait_started(self) -> None:
        match = self.wait_for_log(_ADDRESS.pattern)
        self.host, self.port = match["host"], int(match["port"])
        if PEER == "uvicorn" and "--workers" in self.command:
            # It announces the address before anybody listens there.
            count = int(self.command[self.command.index("--workers") + 1])
            self.wait_for_log(r"(?s)" + r"Application startup complete.*" * count)

    def connect(self, timeout: float = MUST_SECONDS) -> socket.socket:
        return socket.create_connection((self.host, self.port), timeout)

    def memory_bytes(self) -> int:
        return memory_bytes(self.pid)

    def records(self, name: str = "record") -> list[str]:
        """Lines that the application wrote with `record` (tests/apps/support.py)."""
        path = self.directory / name
        return path.read_text().splitlines() if path.exists() else []

    def wait_for_record(self, line: str, count: int = 1, name: str = "record") -> None:
        def there() -> bool:
            return self.records(name).count(line) >= count

        wait_until(there, what=f"{line!r} recorded {count} times")

    def allow(self, pattern: str) -> None:
        """Let a traceback whose last line matches the pattern appear in the log."""
        self.allowed.append(re.compile(pattern))

    def wait(self, seconds: float = MUST_SECONDS) -> int:
        """Wait for the end of the server and of every child that shares its output."""
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            where = stacks(self.pid)
            self.kill()
            pytest.fail(f"the server did not end within {seconds:g} s:\n{self.log}\n{where}")
        self._reader.join(MUST_SECONDS)
        if self._reader.is_alive():
            pytest.fail(f"a child outlived the server and holds its output:\n{self.log}")
        return code

    def kill(self) -> None:
        for pid in reversed(descendants(self.pid)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()

    def stop(self, *, check: bool = True) -> None:
        """SIGTERM; then the exit code must be 0 and the log free of surprises."""
        alive = self.process.poll() is None
        if alive:
            self.process.send_signal(signal.SIGTERM)
        code = self.wait()
        if not check:
            return
        assert alive, f"the server had ended by itself with {code}:\n{self.log}"
        # uvicorn ends by the signal that it was sent.
        clean = (0, -signal.SIGTERM) if PEER == "uvicorn" else (0,)
        assert code in clean, f"exit code {code}:\n{self.log}"
        self.check_log()

    def check_log(self) -> None:
        log = self.log
        for last in exceptions_in(log):
            if not any(pattern.search(last) for pattern in self.allowed):
                pytest.fail(f"unexpected traceback in the server's log ({last}):\n{log}")
        for line in log.splitlines():
            if any(word in line for word in _TROUBLE) and not any(
                pattern.search(line) for pattern in self.allowed
            ):
                pytest.fail(f"trouble in the server's log ({line}):\n{log}")


def _environment(directory: pathlib.Path, extra: dict[str, str]) -> dict[str, str]:
    env = {k: v for k, v in os.environ.items() if not k.startswith(("PPSERVER_", "UVICORN_"))}
    env["TEST_APP_DIRECTORY"] = str(directory)
    env["PYTHONUNBUFFERED"] = "1"
    # A server that waits for this does not end while a test waits for it.
    env["PPSERVER_TIMEOUT_GRACEFUL_SHUTDOWN"] = "600"
    # The package is found where the tests are; a sanitizer build in PYTHONPATH goes first.
    env["PYTHONPATH"] = os.pathsep.join(filter(None, [env.get("PYTHONPATH"), str(ROOT)]))
    env["PYTHONWARNINGS"] = "always::ResourceWarning,always::RuntimeWarning"
    env.update(extra)
    return env


def script_environment(directory: pathlib.Path, extra: dict[str, str]) -> dict[str, str]:
    """For a program that imports what is beside it, as users start it."""
    env = _environment(directory, extra)
    env.pop("PYTHONSAFEPATH", None)
    return env


def _command(
    app: str,
    loop: str,
    contexts: int,
    place: str | None,
    interface: str,
    task: str,
    lifespan: str,
    args: Sequence[str],
) -> list[str]:
    common = [app, "--port", "0", "--app-dir", str(APPS), "--loop", loop, "--lifespan", lifespan]
    if PEER == "uvicorn":
        if place not in (None, "auto", "processes"):
            pytest.skip("the reference server has only processes")
        if task not in ("worker", "plain"):
            pytest.skip("the reference server has only plain tasks")
        kind = {"auto": "auto", "asgi": "asgi3", "wsgi": "wsgi"}[interface]
        common += ["--interface", kind, "--ws", "none", "--http", "httptools"]
        common += ["--timeout-graceful-shutdown", "2"]
        if contexts > 1:
            common += ["--workers", str(contexts)]
        return [sys.executable, "-m", "uvicorn", *common, *args]
    common += ["--interface", interface]
    if contexts > 1:
        common += ["--cores", str(contexts)]
    elif place in (None, "auto") and "--contexts" not in args and "--supervise" not in args:
        common += ["--supervise", "never"]  # One process, unless a test says otherwise.
    if task != "worker":
        common += ["--task", task]
    if place is None:
        place = PLACE if contexts > 1 else "auto"
    if place == "interpreters" and loop == "uvloop":
        pytest.skip("uvloop refuses subinterpreters")
    if place == "interpreters" and app.partition(":")[0] in _REFUSED_BY_INTERPRETERS:
        pytest.skip(f"{app} needs a module that refuses subinterpreters")
    if place != "auto":
        common += ["--contexts", place]
    return [sys.executable, "-m", "ppserver", *common, *args]


def launch(
    app: str,
    directory: pathlib.Path,
    *,
    loop: str = "asyncio",
    contexts: int = 1,
    place: str | None = None,
    interface: str = "auto",
    task: str = "worker",
    lifespan: str = "auto",
    args: Sequence[str] = (),
    env: dict[str, str] | None = None,
    prefix: Sequence[str] = (),
) -> Server:
    """Start a server and return at once; for tests of start-up itself. The command begins with
    ``prefix``."""
    if loop == "uvloop":
        require("uvloop")
    command = _command(app, loop, contexts, place, interface, task, lifespan, args)
    return Server([*prefix, *command], _environment(directory, env or {}), directory)


@contextlib.contextmanager
def running(app: str, directory: pathlib.Path, **options: Any) -> Iterator[Server]:
    """A started server; stopped and checked at the end. Options as `launch`."""
    with stopping(launch(app, directory, **options)) as server:
        server.wait_started()
        yield server


@contextlib.contextmanager
def stopping(server: Server) -> Iterator[Server]:
    """A server that is stopped and checked at the end, or killed if there is an error."""
    try:
        yield server
    except BaseException:
        server.kill()
        server.wait()
        raise
    server.stop()


@contextlib.contextmanager
def visitors(server: Server, count: int = 4) -> Iterator[tuple[list[str], list[str]]]:
    """Clients with a connection per request: once it stands, its request must be answered.

    Yields what was answered and what was not.
    """
    served: list[str] = []
    broken: list[str] = []
    stop = threading.Event()

    def visit() -> None:
        while not stop.is_set():
            connection = http.client.HTTPConnection(server.host, server.port, timeout=MUST_SECONDS)
            try:
                connection.connect()
            except (ConnectionRefusedError, TimeoutError):
                stop.wait(0.01)
                continue
            try:
                connection.request("GET", "/")
                served.append(connection.getresponse().read().decode())
            except (OSError, http.client.HTTPException) as error:
                broken.append(repr(error))
            finally:
                connection.close()

    threads = [threading.Thread(target=visit) for _ in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield served, broken
    finally:
        stop.set()
        for thread in threads:
            thread.join(MUST_SECONDS)
