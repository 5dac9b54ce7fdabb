"""Logging: what the server says about itself (stderr) and about requests (stdout).

Three loggers: ``ppserver`` (their parent), ``ppserver.error`` for the server's own messages and
the application's exceptions, ``ppserver.access`` for requests. The access log takes a fast path
past Python (the C core writes the lines) unless somebody customises it with ``log_config`` or
``log_format="json"``. Text that came from a peer is escaped before it is written.
"""

from __future__ import annotations

import contextlib
import json
import logging
import logging.config
import os
import re
import resource
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ppserver.config import Config
from ppserver.errors import ConfigError
from ppserver.observe.console import Console

access_logger = logging.getLogger("ppserver.access")
error_logger = logging.getLogger("ppserver.error")

_REOPEN_FIRST = 1.0
_REOPEN_MAX = 60.0
_UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f\\\"\u2028\u2029\ud800-\udfff]")


def escape(text: str) -> str:
    """``text`` with control characters, quotes, backslashes and lone surrogates escaped."""
    return _UNSAFE.sub(_escape_one, text)


def _escape_one(match: re.Match[str]) -> str:
    char = match[0]
    if char in '\\"':
        return "\\" + char
    code = ord(char)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


class TextFormatter(logging.Formatter):
    """``INFO:     message``: the level, padded, then the message."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        return f"{record.levelname + ':':<10}{record.message}"


class ConsoleHandler(logging.StreamHandler[Console]):
    """Writes to standard output or standard error, and never waits for long."""

    def __init__(self, name: str) -> None:
        super().__init__(Console(name))


class JSONFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
            + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "pid": record.process,
            "message": record.getMessage(),
        }
        entry.update(getattr(record, "request", None) or {})
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False)


def configure(config: Config) -> None:
    """Set the server's loggers up. Can be called again: it replaces what it set before.

    Raises ConfigError if ``log_config`` cannot be read or is wrong.
    """
    level = getattr(logging, config.log_level.upper())
    if config.log_config is not None:
        _load(config.log_config)
        _never_wait()
        return
    formatter = JSONFormatter() if config.log_format == "json" else TextFormatter()
    logging.getLogger("ppserver").setLevel(level)
    access_logger.setLevel(logging.INFO)
    for logger, stream in ((error_logger, "stderr"), (access_logger, "stdout")):
        for handler in [h for h in logger.handlers if isinstance(h, ConsoleHandler)]:
            logger.removeHandler(handler)
        if logger.handlers:
            continue
        console = ConsoleHandler(stream)
        console.setFormatter(formatter)
        logger.addHandler(console)
        logger.propagate = False


def keep() -> None:
    """Enable the server's loggers again.

    ``dictConfig()`` and ``fileConfig()`` disable, unless told otherwise, every logger that is there
    and that they do not name: an application that sets its own logging up does not mean ours.
    """
    access_logger.disabled = error_logger.disabled = False


def _load(path: str) -> None:
    import tomllib  # Of use with such a file only; every context would keep it.

    try:
        if path.endswith((".toml", ".json")):
            with open(path, "rb") as file:
                data = tomllib.load(file) if path.endswith(".toml") else json.load(file)
            data.setdefault("disable_existing_loggers", False)
            logging.config.dictConfig(data)
        else:
            os.stat(path)
            logging.config.fileConfig(path, disable_existing_loggers=False)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}", setting="log_config") from None
    except (ValueError, KeyError, TypeError, AttributeError, ImportError, RuntimeError) as error:
        raise ConfigError(f"{path} is wrong: {error}", setting="log_config") from None


def _never_wait() -> None:
    """Have the handlers that a configuration made for the console write as ours do."""
    for handler in [ref() for ref in list(logging._handlerList)]:  # type: ignore[attr-defined]
        if type(handler) is logging.StreamHandler:
            for name in ("stdout", "stderr"):
                if handler.stream is getattr(sys, name):
                    handler.setStream(Console(name))


def access_options(config: Config) -> dict[str, Any]:
    """The Core's options for the access log: its fast path, its slow path, or none."""
    keep()
    if not config.access_log:
        return {}
    if config.log_config is None and config.log_format == "text":
        with contextlib.suppress(OSError, ValueError, AttributeError):
            if sys.stdout is not None and _only_ours(access_logger):
                sys.stdout.flush()
                return {"access_log_fd": sys.stdout.fileno(), "access_log_prefix": b"INFO:     "}
    return {"access_log": log_access} if access_logger.isEnabledFor(logging.INFO) else {}


def _only_ours(logger: logging.Logger) -> bool:
    """Whether ``configure`` set this logger up and nobody else touched it."""
    handlers = logger.handlers
    return bool(handlers) and all(isinstance(handler, ConsoleHandler) for handler in handlers)


def log_access(client: str, method: str, target: str, version: str, status: int) -> None:
    """The slow path: one record on ``ppserver.access``, uvicorn's line as its message."""
    if not access_logger.isEnabledFor(logging.INFO):
        return
    access_logger.info(
        '%s - "%s %s HTTP/%s" %d',
        escape(client),
        escape(method),
        escape(target),
        escape(version),
        status,
        extra={
            "request": {
                "client": client,
                "method": method,
                "target": target,
                "http_version": version,
                "status": status,
            }
        },
    )


def log_protocol_error(error: BaseException, protocol: object) -> None:
    """The exception of a callback or method of a protocol of the parallel API."""
    keep()
    error_logger.error(
        "Exception in protocol %s",
        getattr(protocol, "__qualname__", type(protocol).__qualname__),
        exc_info=(type(error), error, error.__traceback__),
    )


def log_application_error(error: BaseException, request: Mapping[str, Any] | None) -> None:
    """The application's exception with the request it failed on (an ASGI scope or an environ).

    Without a request it is the server's own: a thread that cannot be made, memory that is used up.
    """
    keep()
    exc_info = (type(error), error, error.__traceback__)
    if request is None:
        error_logger.error("Exception outside of a request", exc_info=exc_info)
        return
    method = request.get("method") or request.get("REQUEST_METHOD") or "?"
    path = request.get("path") or request.get("PATH_INFO") or "?"
    error_logger.error(
        "Exception in application on %s %s",
        escape(str(method)),
        escape(str(path)),
        exc_info=exc_info,
    )


def announce(urls: Sequence[str]) -> None:
    """The line people wait for."""
    keep()
    for url in urls:
        error_logger.info("ppserver running on %s (Press CTRL+C to quit)", url)


class _Reopening:
    """When to try again to open log files that could not be opened."""

    def __init__(self) -> None:
        self.at = 0.0
        self.pause = _REOPEN_FIRST


_reopening = _Reopening()


def reopen() -> None:
    """Make every log file open anew (after rotation): at SIGUSR1.

    One that cannot be opened goes on as it was, which is logged and tried again later.
    """
    failed = _reopen_files()
    for name, error in failed:
        error_logger.error("Log file %s cannot be opened anew: %s", name, error.strerror or error)
    _reopening.pause = _REOPEN_FIRST
    _reopening.at = time.monotonic() + _REOPEN_FIRST if failed else 0.0
    if not failed:
        error_logger.info("Log files reopened.")


def reopen_at() -> float:
    """When ``reopen_again()`` has something to do, of ``time.monotonic()``; 0 for never."""
    return _reopening.at


def reopen_again(now: float) -> None:
    """Try again what ``reopen()`` could not do, if it is time."""
    if not _reopening.at or now < _reopening.at:
        return
    if _reopen_files():
        _reopening.pause = min(2 * _reopening.pause, _REOPEN_MAX)
        _reopening.at = now + _reopening.pause
    else:
        _reopening.at = 0.0
        error_logger.info("Log files reopened.")


def _reopen_files() -> list[tuple[str, OSError]]:
    """Open every log file anew; those that could not be, and why."""
    failed = []
    for handler in [ref() for ref in list(logging._handlerList)]:  # type: ignore[attr-defined]
        if not isinstance(handler, logging.FileHandler) or handler.stream is None:
            continue
        try:
            fresh = handler._open()
        except OSError as error:
            failed.append((handler.baseFilename, error))
            continue
        handler.acquire()
        try:
            stream, handler.stream = handler.stream, fresh
        finally:
            handler.release()
        with contextlib.suppress(OSError, ValueError):  # What it could not write is lost, too.
            stream.close()
    return failed


# Counted, but every healthy server has them; or the application's, which are logged one by one.
_ORDINARY = ("errors_idle_timeout", "errors_disconnected", "errors_app_")
_REFUSED = "requests refused"
_ENDED = "connections ended"
# What a counter counts, and what to do about it.
_EXPLAINED = {
    "bad_request_line": (_REFUSED, "malformed request line"),
    "bad_method": (_REFUSED, "not HTTP (TLS on a plain port?)"),
    "bad_target": (_REFUSED, "malformed request target"),
    "bad_version": (_REFUSED, "HTTP version not supported"),
    "bad_header": (_REFUSED, "malformed header field"),
    "bad_host": (_REFUSED, "missing, repeated or malformed Host"),
    "bad_content_length": (_REFUSED, "malformed or repeated Content-Length"),
    "bad_transfer_coding": (_REFUSED, "unacceptable Transfer-Encoding"),
    "unknown_transfer_coding": (_REFUSED, "transfer coding not implemented"),
    "bad_expect": (_REFUSED, "expectation not supported"),
    "bad_chunk": (_REFUSED, "malformed chunk of a body"),
    "bad_trailer": (_REFUSED, "malformed trailer field"),
    "uri_too_long": (_REFUSED, "request line longer than --limit-request-line"),
    "head_too_large": (_REFUSED, "request head larger than --limit-request-head"),
    "too_many_fields": (_REFUSED, "more header fields than --limit-request-fields"),
    "body_too_large": (_REFUSED, "body larger than --max-request-body-size"),
    "header_timeout": (_ENDED, "request head not complete within --timeout-request-header"),
    "body_timeout": (_ENDED, "request body paused for --timeout-body-idle"),
    "write_timeout": (_ENDED, "client read nothing of its response for --timeout-write"),
    "overloaded": (_REFUSED, "more requests at once than --limit-concurrency"),
    "no_memory": (_REFUSED, "out of memory"),
    "no_descriptors": ("connections waited", "out of file descriptors"),
    "system": (_ENDED, "system call failed"),
    "log_lines_dropped": ("lines lost", "nobody reads the access log fast enough"),
    "accept_errors": ("connections waited", "the kernel did not hand them over"),
}
_SINGULAR = {"requests": "request", "connections": "connection", "lines": "line"}


def _explain(name: str, count: int) -> str:
    """One counter's growth in words, with the counter's name."""
    if name not in _EXPLAINED:
        return f"{name} {count}"
    what, why = _EXPLAINED[name]
    if count == 1:
        noun, _, verb = what.partition(" ")
        what = f"{_SINGULAR[noun]} {verb}"
    if name in ("no_descriptors", "accept_errors") and _descriptors_are_few():
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        why = f"out of file descriptors (limit {soft}): raise LimitNOFILE or ulimit -n"
    return f"{count} {what}: {why} [{name}]"


def _descriptors_are_few() -> bool:
    """Whether this process has used up most of the descriptors it may have."""
    try:
        used = len(os.listdir("/proc/self/fd"))
    except OSError:  # There is none left to look with.
        return True
    return used >= resource.getrlimit(resource.RLIMIT_NOFILE)[0] * 3 // 4


class PeerErrors:
    """Turns the growth of the Core's error counters into one warning per interval."""

    def __init__(self, stats: Callable[[], Mapping[str, int]], interval: float = 10.0) -> None:
        self.interval = interval
        self._stats = stats
        self._last: dict[str, int] = {}
        self._upgrade_told = False

    def report(self) -> None:
        """Log what was counted since the last call, if anything."""
        stats = self._stats()
        if stats.get("upgrades") and not self._upgrade_told:
            self._upgrade_told = True
            error_logger.warning(
                "A client asked to upgrade its connection to another protocol (WebSocket or h2c, "
                "for example). This server supports HTTP/1.1 only and answered the request as an "
                "ordinary one. This is logged once."
            )
        counted = {
            name: value
            for name, value in stats.items()
            if value
            and (name.startswith("errors_") or name in ("accept_errors", "log_lines_dropped"))
            and not name.startswith(_ORDINARY)
        }
        grown = {
            name.removeprefix("errors_"): value - self._last.get(name, 0)
            for name, value in sorted(counted.items())
            if value > self._last.get(name, 0)
        }
        self._last = counted
        if grown:
            text = "; ".join(_explain(name, count) for name, count in grown.items())
            error_logger.warning("In the last %g s: %s", self.interval, text)
