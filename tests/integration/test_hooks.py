"""on_start, on_context_start, on_context_stop and on_stop, wherever contexts live."""

from __future__ import annotations

import pathlib
import sys
from typing import Any

import pytest
import serving

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(serving.PEER != "ppserver", reason="hooks of ppserver"),
]

PLACES = [
    (1, "auto"),
    (2, "processes"),
    (2, "threads"),
    *([(2, "interpreters")] if sys.version_info >= (3, 13) else []),
]
WSGI = ["start", "context start", "context stop first", "context stop", "stop first", "stop"]
ASGI = [
    *("start", "context start", "startup"),
    *("shutdown", "context stop first", "context stop", "stop first", "stop"),
]


def check(records: list[str], expected: list[str], contexts: int, once: bool) -> None:
    """Each line as often as it should be, and in this order in every context."""
    for line in expected:
        of_context = "context" in line or line in ("startup", "shutdown")
        assert records.count(line) == (contexts if of_context or not once else 1), line
    assert len(records) == sum(records.count(line) for line in expected)
    if once:
        assert records[0] == "start"
        assert records[-2:] == ["stop first", "stop"]
    if contexts == 1:
        assert records == expected


@pytest.mark.parametrize("name", ["app", "wsgi"])
@pytest.mark.parametrize(("contexts", "place"), PLACES)
def test_once_and_in_each_context(
    tmp_path: pathlib.Path, name: str, contexts: int, place: str
) -> None:
    with serving.running(f"hooked:{name}", tmp_path, contexts=contexts, place=place) as server:
        assert serving.get(server.url).status_code == 204
    expected = ASGI if name == "app" else WSGI
    check(server.records(), expected, contexts, once=place != "interpreters")


def test_each_context_runs_all_where_it_imports(tmp_path: pathlib.Path) -> None:
    options: dict[str, Any] = {"contexts": 2, "place": "processes", "args": ["--load", "each"]}
    with serving.running("hooked:wsgi", tmp_path, **options) as server:
        pass
    check(server.records(), WSGI, 2, once=False)
    assert server.log.count("ppserver 0") == 1
    assert ": WSGI, " in server.log, "the first context has told what it is"


def test_async_functions_by_settings(tmp_path: pathlib.Path) -> None:
    args = [
        *("--on-context-start", "hooked:named_start"),
        *("--on-context-stop", "hooked:named_stop"),
    ]
    with serving.running("hooked:app", tmp_path, args=args) as server:
        pass
    assert server.records() == [
        *("start", "context start", "named start", "startup"),
        *("shutdown", "named stop", "context stop first", "context stop", "stop first", "stop"),
    ]


@pytest.mark.parametrize("contexts", [1, 2])
def test_a_context_that_cannot_start(tmp_path: pathlib.Path, contexts: int) -> None:
    (tmp_path / "fail-context-start").touch()
    server = serving.launch("hooked:app", tmp_path, contexts=contexts)
    assert server.wait() == 3
    assert "on_context_start: context_start failed: ExpectedError" in server.log
    assert "in fail_if_told" in server.log


@pytest.mark.parametrize("name", ["hanging_start", "hanging_async_start"])
@pytest.mark.parametrize("contexts", [1, 2])
def test_a_context_whose_start_hangs(tmp_path: pathlib.Path, contexts: int, name: str) -> None:
    if contexts > 1 and name == "hanging_start" and serving.PLACE in ("threads", "interpreters"):
        pytest.skip("a function that hangs in a thread is named, but cannot be ended")
    args = ["--on-context-start", f"hooked:{name}", "--timeout-startup", "0.5"]
    server = serving.launch("hooked:app", tmp_path, contexts=contexts, args=args)
    server.allow("CancelledError")  # Where the function was.
    assert server.wait() == 3
    assert f"on_context_start: {name} took longer than 0.5 seconds" in server.log
    line = "time.sleep(600)" if name == "hanging_start" else "await asyncio.Event().wait()"
    assert line in server.log
    server.check_log()


@pytest.mark.parametrize("what", ["context-stop", "stop"])
def test_a_failure_at_the_end_is_told_and_the_others_run(tmp_path: pathlib.Path, what: str) -> None:
    (tmp_path / f"fail-{what}").touch()
    server = serving.launch("hooked:wsgi", tmp_path)
    server.wait_started()
    server.process.terminate()
    assert server.wait() == 1
    assert f"on_{what.replace('-', '_')}: " in server.log
    assert server.records() == WSGI


def test_async_functions_need_asgi(tmp_path: pathlib.Path) -> None:
    args = ["--on-context-start", "hooked:named_start"]
    server = serving.launch("hooked:wsgi", tmp_path, args=args)
    assert server.wait() == 3
    assert "on_context_start: named_start is an async function" in server.log
