"""A live server on a free port, for tests: :class:`LiveServer`.

::

    with LiveServer(app) as server:
        assert httpx.get(server.url).status_code == 200

In a thread of this process by default; ``process=True`` (with an import string) starts
``python -m ppserver`` instead, for several contexts, signals and exit codes.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any

from ppserver.config import Config, own_names, table
from ppserver.errors import ConfigError, PPServerError
from ppserver.observe import readiness
from ppserver.types import Stats


class LiveServer:
    """Serves ``app`` while the ``with`` block runs.

    ``settings`` are those of :class:`~ppserver.config.Config`; ``port`` is 0 and the access log
    off unless given. ``env``, ``python`` (the command, with its options), and settings of a whole
    process such as ``cores`` or ``user`` need ``process=True``, else ConfigError. Entering raises
    PPServerError if the server does not start within ``start_timeout`` seconds; leaving stops it
    and waits ``stop_timeout`` seconds for its end. Several may serve at once; in threads, ``log``
    is then that of all of them.
    """

    def __init__(
        self,
        app: Any,
        *,
        process: bool = False,
        env: Mapping[str, str] | None = None,
        python: tuple[str, ...] | None = None,
        start_timeout: float = 20.0,
        stop_timeout: float = 20.0,
        **settings: Any,
    ) -> None:
        settings = own_names(settings)
        if not settings.keys() & {"bind", "uds", "fd"}:
            settings.setdefault("port", 0)
        settings.setdefault("access_log", False)
        self.config = Config(app, **settings)
        self.urls: list[str] = []
        self.exit_code: int | None = None
        self.error: BaseException | None = None
        self._settings = settings
        self._start_timeout = start_timeout
        self._stop_timeout = stop_timeout
        self._runner: _InThread | _InProcess
        if process:
            self._runner = _InProcess(self, python or (sys.executable,), env)
        else:
            _refuse_ignored(self.config, env=env, python=python)
            self._runner = _InThread(self)

    @property
    def url(self) -> str:
        """The first address, such as ``http://127.0.0.1:41234``."""
        return self.urls[0]

    @property
    def host(self) -> str:
        return self.url.removeprefix("http://").rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    @property
    def pid(self) -> int:
        """The server's process; the supervisor's if it has one."""
        return self._runner.pid

    @property
    def log(self) -> str:
        """What the server has logged so far (of a process: all of its standard error)."""
        return self._runner.log

    @property
    def output(self) -> str:
        """A process's standard output so far: the access log."""
        return self._runner.output

    def stats(self) -> Stats:
        """The context's counters. RuntimeError for a server in another process."""
        return self._runner.stats()

    def start(self) -> LiveServer:
        """Start and wait until it serves; what entering does."""
        self._runner.start(self._start_timeout)
        return self

    def stop(self, timeout: float | None = None) -> int:
        """Stop gracefully and wait; the exit code. Again is harmless."""
        return self._runner.stop(self._stop_timeout if timeout is None else timeout)

    def send_signal(self, number: int) -> None:
        """Send a process a signal."""
        os.kill(self.pid, number)

    def wait(self, timeout: float | None = None) -> int:
        """Wait until it ends by itself; the exit code. TimeoutError if it does not."""
        return self._runner.wait(self._stop_timeout if timeout is None else timeout)

    def wait_for_log(self, text: str, timeout: float = 10.0) -> str:
        """Wait until ``text`` is in the log; the log. TimeoutError if it does not come."""
        with self._runner.grown:
            if not self._runner.grown.wait_for(lambda: text in self.log, timeout):
                raise TimeoutError(f"{text!r} did not appear in:\n{self.log}")
        return self.log

    def __enter__(self) -> LiveServer:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


# What one context within a program does not look at.
_OF_A_PROCESS = (
    "cores",
    "contexts",
    "gil",
    "limit_max_requests",
    "limit_max_requests_jitter",
    "pid",
    "pin",
    "user",
    "group",
    "umask",
)


def _refuse_ignored(config: Config, **arguments: object) -> None:
    """ConfigError for what would be ignored in a thread."""
    given = [name for name, value in arguments.items() if value is not None]
    given += [n for n in _OF_A_PROCESS if getattr(config, n) != table()[n].default]
    if given:
        raise ConfigError(
            f"{given[0]} has no effect on a server in a thread", hint="process=True starts one"
        )


class _InThread:
    """The server in a thread: its log is captured from the server's loggers."""

    def __init__(self, live: LiveServer) -> None:
        from ppserver.context.server import Server

        ready = self._ready = threading.Event()

        class Told(Server):
            """Tells when it serves: its log may be switched off, or be another server's."""

            async def startup(self) -> None:
                await super().startup()
                ready.set()

        self.grown = threading.Condition()
        self.output = ""
        self._live = live
        self._server = Told(live.config)
        self._text = io.StringIO()
        self._handler = _Capture(self)
        self._thread = threading.Thread(target=self._run, name="LiveServer", daemon=True)

    @property
    def pid(self) -> int:
        return os.getpid()

    @property
    def log(self) -> str:
        return self._text.getvalue()

    def stats(self) -> Stats:
        return self._server.stats()

    def add(self, line: str) -> None:
        with self.grown:
            self._text.write(line + "\n")
            self.grown.notify_all()

    def start(self, timeout: float) -> None:
        logger = logging.getLogger("ppserver.error")
        logger.addHandler(self._handler)
        self._thread.start()
        if not self._ready.wait(timeout) or not self._server.started:
            error = self._live.error
            self.stop(5.0)
            if error is not None:
                raise error
            raise PPServerError(f"the server did not start within {timeout:g} s:\n{self.log}")
        self._live.urls = self._server.urls

    def stop(self, timeout: float) -> int:
        self._server.should_exit = True
        try:
            return self.wait(timeout)
        finally:
            logging.getLogger("ppserver.error").removeHandler(self._handler)

    def wait(self, timeout: float) -> int:
        self._thread.join(timeout)
        if self._thread.is_alive():
            raise TimeoutError(f"the server did not end within {timeout:g} s")
        return self._live.exit_code or 0

    def _run(self) -> None:
        try:
            self._live.exit_code = self._server.run()
        except BaseException as error:
            self._live.error = error
            self._live.exit_code = getattr(error, "exit_code", 1)
        finally:
            self._ready.set()


class _Capture(logging.Handler):
    """Gives what the thread's server logs to its owner."""

    def __init__(self, owner: _InThread) -> None:
        super().__init__()
        self._owner = owner
        self.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        self._owner.add(self.format(record))


class _InProcess:
    """The server as ``python -m ppserver``: two threads collect what it writes."""

    def __init__(
        self, live: LiveServer, python: tuple[str, ...], env: Mapping[str, str] | None
    ) -> None:
        if not isinstance(live.config.app, str):
            raise TypeError("process=True needs an import string")
        self.grown = threading.Condition()
        self._live = live
        self._command = [*python, "-m", "ppserver", live.config.app, *_flags(live._settings)]
        self._env = {**os.environ, **(env or {})}
        self._process: subprocess.Popen[str] | None = None
        self._texts: list[list[str]] = [[], []]
        self._threads: list[threading.Thread] = []

    @property
    def pid(self) -> int:
        assert self._process is not None, "not started"
        return self._process.pid

    @property
    def output(self) -> str:
        return "".join(self._texts[0])

    @property
    def log(self) -> str:
        return "".join(self._texts[1])

    def stats(self) -> Stats:
        raise RuntimeError("the counters are in another process")

    def start(self, timeout: float) -> None:
        with contextlib.closing(readiness.Listener()) as listener:
            self._launch({**self._env, readiness.VARIABLE: listener.path})
            self._live.urls = self._wait_until_ready(listener, timeout)
        if not self._live.urls:
            code = self.stop(5.0)
            error = PPServerError(f"the server did not start (exit code {code}):\n{self.log}")
            self._live.error = error
            raise error

    def _launch(self, env: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="backslashreplace",
            env=env,
        )
        for stream, lines in zip(
            (self._process.stdout, self._process.stderr), self._texts, strict=True
        ):
            thread = threading.Thread(target=self._collect, args=(stream, lines), daemon=True)
            thread.start()
            self._threads.append(thread)

    def _wait_until_ready(self, listener: readiness.Listener, timeout: float) -> list[str]:
        """Where it listens; nowhere if it ended, or time is over."""
        assert self._process is not None
        end = time.monotonic() + timeout
        while self._process.poll() is None and time.monotonic() < end:
            urls = listener.urls(0.1)
            if urls:
                return urls
        return []

    def stop(self, timeout: float) -> int:
        if self._process is None:
            return 0
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            return self.wait(timeout)
        except TimeoutError:
            self._process.kill()
            self._process.wait()
            raise

    def wait(self, timeout: float) -> int:
        assert self._process is not None, "not started"
        try:
            code = self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise TimeoutError(
                f"the server did not end within {timeout:g} s:\n{self.log}"
            ) from None
        for thread in self._threads:
            thread.join(5.0)
        self._live.exit_code = code
        return code

    def _collect(self, stream: Any, lines: list[str]) -> None:
        with stream:
            for line in stream:
                with self.grown:
                    lines.append(line)
                    self.grown.notify_all()
        with self.grown:
            self.grown.notify_all()


def _flags(settings: Mapping[str, Any]) -> Iterator[str]:
    """Settings as flags of the command line."""
    for name, value in settings.items():
        option = table()[name]
        if value is None:
            continue
        if option.kind is bool:
            yield option.flag if value else option.flag.replace("--", "--no-", 1)
        elif isinstance(value, tuple | list):
            for part in value:
                yield f"{option.flag}={part}"
        else:
            yield f"{option.flag}={value:o}" if name == "umask" else f"{option.flag}={value}"
