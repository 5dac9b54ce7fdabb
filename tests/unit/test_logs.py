"""Log lines: forms, escapes, files opened anew, peers' errors summed up."""

from __future__ import annotations

import io
import json
import logging
import pathlib
import subprocess
import sys
from collections.abc import Iterator

import pytest

from ppserver._native import Core
from ppserver.config import Config
from ppserver.errors import ConfigError
from ppserver.observe import logs


@pytest.fixture(autouse=True)
def loggers_as_before() -> Iterator[None]:
    names = ("ppserver", "ppserver.error", "ppserver.access")
    loggers = [logging.getLogger(name) for name in names]
    before = [(list(item.handlers), item.propagate, item.level) for item in loggers]
    yield
    for item, (handlers, propagate, level) in zip(loggers, before, strict=True):
        for handler in set(item.handlers) - set(handlers):
            handler.close()
        item.handlers, item.propagate, item.level = handlers, propagate, level


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("plain /ä?q=1", "plain /ä?q=1"),
        ("a\r\nb\x00", "a\\x0d\\x0ab\\x00"),
        ("\x1b[31m", "\\x1b[31m"),
        ('"\\', '\\"\\\\'),
        ("\x85\u2028\udc80", "\\x85\\u2028\\udc80"),
    ],
)
def test_escape(text: str, escaped: str) -> None:
    assert logs.escape(text) == escaped
    escaped.encode()


def test_text(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(Config())
    logs.error_logger.info("hello")
    logs.error_logger.debug("not shown")
    logs.log_access("1.2.3.4:5", "GET", "/a\x1bb?q", "1.1", 200)
    out, err = capsys.readouterr()
    assert err == "INFO:     hello\n"
    assert out == 'INFO:     1.2.3.4:5 - "GET /a\\x1bb?q HTTP/1.1" 200\n'


def test_configuring_again_does_not_repeat_lines(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(Config(log_level="debug"))
    logs.configure(Config(log_level="warning"))
    logs.error_logger.warning("once")
    logs.error_logger.info("never")
    assert capsys.readouterr().err == "WARNING:  once\n"


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(Config(log_format="json"))
    logs.log_access("1.2.3.4:5", "GET", "/a\nb", "1.1", 200)
    try:
        raise ValueError("no")
    except ValueError as error:
        logs.log_application_error(error, {"method": "GET", "path": "/\n"})
    out, err = capsys.readouterr()
    access, error_line = json.loads(out), json.loads(err)
    assert access["status"] == 200
    assert access["target"] == "/a\nb"
    assert error_line["level"] == "error"
    assert "ValueError: no" in error_line["exception"]
    assert "\\x0a" in error_line["message"]


def test_application_error_of_wsgi(caplog: pytest.LogCaptureFixture) -> None:
    logs.log_application_error(KeyError("k"), {"REQUEST_METHOD": "POST", "PATH_INFO": "/\x1b"})
    assert "POST /\\x1b" in caplog.text
    assert "KeyError" in caplog.text


def test_an_error_without_a_request_is_not_the_applications(
    caplog: pytest.LogCaptureFixture,
) -> None:
    logs.log_application_error(RuntimeError("can't start new thread"), None)
    assert caplog.messages == ["Exception outside of a request"]
    assert "application" not in caplog.text


def test_fast_path_only_without_customisation() -> None:
    logs.configure(Config())
    assert "access_log_fd" in logs.access_options(Config())
    assert "access_log" in logs.access_options(Config(log_format="json"))
    assert logs.access_options(Config(access_log=False)) == {}
    logs.access_logger.addHandler(logging.NullHandler())
    assert "access_log" in logs.access_options(Config())


def test_a_program_that_configures_logging_itself_gets_records() -> None:
    """As with `Server.serve`, which leaves logging to the program it runs in."""
    logs.access_logger.handlers = []
    logs.access_logger.setLevel(logging.WARNING)
    assert logs.access_options(Config()) == {}
    logs.access_logger.setLevel(logging.INFO)
    assert logs.access_options(Config()) == {"access_log": logs.log_access}


def test_console_follows_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    logs.configure(Config())
    streams = [io.StringIO(), io.StringIO()]
    for stream in streams:
        monkeypatch.setattr(sys, "stderr", stream)
        logs.error_logger.info("hello")
    monkeypatch.setattr(sys, "stderr", None)
    logs.error_logger.info("nobody listens")
    assert [stream.getvalue() for stream in streams] == ["INFO:     hello\n"] * 2


def test_log_config(tmp_path: pathlib.Path) -> None:
    log = tmp_path / "error.log"
    path = tmp_path / "log.toml"
    path.write_text(
        "version = 1\n"
        f"[handlers.file]\nclass = 'logging.FileHandler'\nfilename = '{log}'\n"
        "[loggers.'ppserver.error']\nhandlers = ['file']\nlevel = 'INFO'\n"
    )
    logs.configure(Config(log_config=str(path)))
    logs.error_logger.info("one")
    log.rename(tmp_path / "rotated")
    logs.reopen()
    logs.error_logger.info("two")
    assert (tmp_path / "rotated").read_text() == "one\n"
    assert log.read_text() == "Log files reopened.\ntwo\n"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("log.toml", "version = 1\n[handlers.x]\nclass = 'no.such'\n"),
        ("log.toml", "version ="),
        ("log.json", "{"),
        ("log.ini", "nonsense"),
    ],
)
def test_wrong_log_config(tmp_path: pathlib.Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError, match="log_config"):
        logs.configure(Config(log_config=str(tmp_path / name)))


def test_missing_log_config() -> None:
    with pytest.raises(ConfigError, match="cannot read"):
        logs.configure(Config(log_config="/nowhere/log.ini"))


def test_peer_errors_are_one_line(caplog: pytest.LogCaptureFixture) -> None:
    stats = {"errors_head": 0, "errors_bad_chunk": 3, "errors_app_failed": 5, "requests": 9}
    peers = logs.PeerErrors(lambda: dict(stats), interval=10.0)
    peers.report()
    stats.update(errors_head=2, errors_bad_method=1, requests=20)
    peers.report()
    peers.report()
    assert [record.getMessage() for record in caplog.records] == [
        "In the last 10 s: 3 requests refused: malformed chunk of a body [bad_chunk]",
        "In the last 10 s: 1 request refused: not HTTP (TLS on a plain port?) [bad_method]; head 2",
    ]


def test_an_upgrade_that_cannot_be_served_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    stats = {"upgrades": 0}
    peers = logs.PeerErrors(lambda: dict(stats))
    for count in (0, 1, 5):
        stats["upgrades"] = count
        peers.report()
    assert (
        sum(
            "asked to upgrade its connection to another protocol" in r.message
            for r in caplog.records
        )
        == 1
    )


def test_every_error_that_is_reported_is_explained() -> None:
    """Core's counters, but for those that are not reported."""
    names = {name.removeprefix("errors_") for name in Core().stats() if name.startswith("errors_")}
    silent = {"idle_timeout", "disconnected"} | {name for name in names if name.startswith("app_")}
    assert names - silent == logs._EXPLAINED.keys() - {
        "accept_errors",
        "log_lines_dropped",
    }


def test_lost_access_lines_are_told(caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("ppserver").propagate = True
    logs.PeerErrors(lambda: {"log_lines_dropped": 3, "tried": 1}).report()
    (record,) = caplog.records
    assert "3 lines lost: nobody reads the access log fast enough" in record.getMessage()
    assert "log_lines_dropped" in Core().stats()


def test_missing_descriptors_name_the_limit(caplog: pytest.LogCaptureFixture) -> None:
    program = """
import os, resource
from ppserver.observe import logs
from ppserver._native import Core
from ppserver.config import Config
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
kept = [os.open("/dev/null", os.O_RDONLY) for _ in range(50)]
logs.configure(Config())
logs.PeerErrors(lambda: {"errors_no_descriptors": 2}).report()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stderr == (
        "WARNING:  In the last 10 s: 2 connections waited: out of file descriptors (limit 64): "
        "raise LimitNOFILE or ulimit -n [no_descriptors]\n"
    )
