"""The lifespan protocol; `tests/apps/lifespans.py` and `spec.py` are the applications."""

from __future__ import annotations

import signal
import socket
from pathlib import Path
from typing import Any

import pytest
import serving

START_FAILED = 3


def run_to_end(app: str, directory: Path, **options: Any) -> tuple[int, str]:
    """A server that is expected to end by itself: exit code and log."""
    server = serving.launch(app, directory, **options)
    code = server.wait(serving.MUST_SECONDS)
    return code, server.log


@pytest.mark.parametrize("contexts", [1, 2])
def test_startup_and_shutdown_once_per_context(tmp_path: Path, loop: str, contexts: int) -> None:
    with serving.running("spec:app", tmp_path, loop=loop, contexts=contexts) as server:
        server.wait_for_record("startup", contexts)
        assert serving.get(f"{server.url}/scope").status_code == 200
        assert server.records() == ["startup"] * contexts
        for line in ("Waiting for application startup.", "Application startup complete."):
            assert line in server.log
    assert sorted(server.records()) == ["shutdown"] * contexts + ["startup"] * contexts


def test_scope_and_messages(tmp_path: Path, loop: str) -> None:
    with serving.running("lifespans:shows_scope", tmp_path, loop=loop) as server:
        pass
    keys, asgi, first, second = server.records()
    assert {"type", "asgi", "state"} <= set(keys.split()[1:]) <= {"type", "asgi", "state"}
    assert asgi.split()[1] == "3.0"
    assert asgi.split()[2] in ("2.0", "2.1", "2.2", "2.3", "2.4", "2.5")
    assert first == "message {'type': 'lifespan.startup'}"
    assert second == "message {'type': 'lifespan.shutdown'}"


@pytest.mark.parametrize("app", ["unsupported", "returns"])
def test_unsupported_is_served_all_the_same(tmp_path: Path, loop: str, app: str) -> None:
    if app == "returns" and serving.PEER == "uvicorn":
        pytest.skip("the reference server waits for the message for ever")
    with serving.running(f"lifespans:{app}", tmp_path, loop=loop) as server:
        assert serving.get(server.url).text in ("state: {}", "state: None")


def test_unsupported_with_lifespan_on_is_fatal(tmp_path: Path, loop: str) -> None:
    code, log = run_to_end("lifespans:unsupported", tmp_path, loop=loop, lifespan="on")
    assert code == START_FAILED, log
    assert serving.EXPECTED in log


def test_lifespan_off_asks_nothing(tmp_path: Path, loop: str) -> None:
    with serving.running("spec:app", tmp_path, loop=loop, lifespan="off") as server:
        assert serving.get(f"{server.url}/scope").status_code == 200
    assert server.records() == []


@pytest.mark.parametrize("contexts", [1, 2])
def test_startup_failed_is_fatal(tmp_path: Path, loop: str, contexts: int) -> None:
    if contexts == 2 and serving.PEER == "uvicorn":
        pytest.skip("the reference server starts such workers again and again")
    code, log = run_to_end("lifespans:fails", tmp_path, loop=loop, contexts=contexts)
    assert code == START_FAILED, log
    assert "the database is away" in log
    assert "Traceback" not in log


def test_startup_that_raises_with_lifespan_on(tmp_path: Path, loop: str) -> None:
    code, log = run_to_end("lifespans:raises_at_startup", tmp_path, loop=loop, lifespan="on")
    assert code == START_FAILED, log
    assert "ExpectedError: startup" in log
    assert "in raises_at_startup" in log, "the traceback shows where"


def test_nobody_listens_after_a_failed_startup(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    code, log = run_to_end("lifespans:fails", tmp_path, args=("--port", str(port)))
    assert code == START_FAILED, log
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), serving.MUST_SECONDS)


def test_shutdown_failed_is_told(tmp_path: Path, loop: str) -> None:
    server = serving.launch("lifespans:fails_at_shutdown", tmp_path, loop=loop)
    server.wait_started()
    assert serving.get(server.url).status_code == 200
    server.process.send_signal(signal.SIGTERM)
    server.wait()
    assert server.records() == ["shutdown asked"]
    assert "could not say goodbye" in server.log


def test_shutdown_that_raises_is_logged(tmp_path: Path, loop: str) -> None:
    server = serving.launch("lifespans:raises_at_shutdown", tmp_path, loop=loop, lifespan="on")
    server.wait_started()
    server.process.send_signal(signal.SIGTERM)
    server.wait()
    assert "ExpectedError: shutdown" in server.log


def test_lifespan_that_ends_early(tmp_path: Path, loop: str) -> None:
    with serving.running("lifespans:ends_early", tmp_path, loop=loop) as server:
        assert serving.get(server.url).status_code == 200


def test_slow_lifespan_with_tasks_of_its_own(tmp_path: Path, loop: str) -> None:
    with serving.running("lifespans:slow", tmp_path, loop=loop) as server:
        assert server.records() == ["started"], "the address is announced before the start-up"
        assert serving.get(server.url).status_code == 200
    assert server.records() == ["started", "ticked True"]


def test_nonsense_is_refused(tmp_path: Path, loop: str) -> None:
    with serving.running("lifespans:nonsense", tmp_path, loop=loop) as server:
        assert serving.get(server.url).status_code == 200
    refused = [line for line in server.records() if line.startswith("refused")]
    assert len(refused) == 3, server.records()


@pytest.mark.parametrize("task", ["worker", "plain"])
def test_requests_see_copies_of_what_startup_set(tmp_path: Path, loop: str, task: str) -> None:
    """Context variables: of lifespan and, before it, of on_context_start."""
    args = ["--on-context-start", "lifespans:set_by_hook"] if serving.PEER == "ppserver" else []
    app = "lifespans:sets_variables"
    expected = f"by lifespan, {'by a hook' if args else 'nothing'}, 0"
    with serving.running(app, tmp_path, loop=loop, task=task, args=args) as server:
        with serving.client(server.url) as client:
            assert [client.get("/").text for _ in range(3)] == [expected] * 3
        assert serving.get(server.url).text == expected
