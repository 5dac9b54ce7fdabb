"""Contexts in subinterpreters with a GIL of their own: what works there, and what is refused."""

from __future__ import annotations

import concurrent.futures
import contextlib
import http.client
import json
import os
import pathlib
import re
import signal
import sys
from typing import Any

import pytest
import serving
from guests_site import Contexts, Start, get, starter

from ppserver.config import Config
from ppserver.errors import ConfigError
from ppserver.testing import LiveServer

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(serving.PEER != "ppserver", reason="a back end of ppserver"),
]
needs_3_13 = pytest.mark.skipif(
    sys.version_info < (3, 13),
    reason="interpreters with a GIL of their own are used from Python 3.13 on",
)


@pytest.fixture
def start(tmp_path: pathlib.Path, started: list[serving.Server]) -> Start:
    """``start(app, **options)``: a server with two interpreters, for one test."""

    return starter(tmp_path, started)


def failed(server: serving.Server) -> str:
    """The log of a server that could not start."""
    assert server.wait() == 3, server.log
    return server.log


# What works.


@needs_3_13
@pytest.mark.parametrize("name", ["app", "wsgi", "make()"])
def test_each_context_has_everything_for_itself(start: Start, name: str) -> None:
    server = start(f"guests:{name}")
    assert "contexts: 2 \N{MULTIPLICATION SIGN} interpreters" in server.log
    with Contexts(server) as contexts:
        for get_from in contexts.values():
            first = int(get_from("/count"))
            assert [int(get_from("/count")) for _ in range(5)] == [
                first + more for more in range(1, 6)
            ]
        names = sorted(contexts)
    if name == "make()":
        made = [line for line in server.records() if line.startswith("made")]
        assert {f"made {one}" for one in names} <= set(made)
    server.stop()


@needs_3_13
def test_they_run_at_the_same_time(start: Start, tmp_path: pathlib.Path) -> None:
    """Each waits for the other without ever letting go of its GIL."""
    (tmp_path / "meeting").write_bytes(bytes(2))
    server = start()
    with Contexts(server) as contexts, concurrent.futures.ThreadPoolExecutor(2) as pool:
        results = [
            pool.submit(get_from, f"/meet/{number}")
            for number, get_from in enumerate(contexts.values())
        ]
        assert [result.result(serving.MUST_SECONDS) for result in results] == ["met", "met"]
    server.stop()


@needs_3_13
def test_lifespan_runs_in_each(start: Start) -> None:
    server = start()
    with Contexts(server) as contexts:
        names = set(contexts)
    server.stop()
    records = server.records()
    assert {line for line in records if line.startswith("startup")} == {
        f"startup {name}" for name in names
    }
    assert {line for line in records if line.startswith("shutdown")} == {
        f"shutdown {name}" for name in names
    }


@needs_3_13
def test_data_is_loaded_in_each(start: Start) -> None:
    """What one interpreter loads, no other sees: so on_start runs where the contexts are."""
    server = start(args=["--on-start", "guests:prepare"])
    with Contexts(server) as contexts:
        names = sorted(contexts)
    server.stop()
    prepared = [line for line in server.records() if line.startswith("prepared")]
    assert sorted(prepared) == [f"prepared {name}" for name in names]


@needs_3_13
@pytest.mark.parametrize("task", ["worker", "eager", "plain"])
def test_every_kind_of_task(start: Start, task: str) -> None:
    server = start("battery:app", task=task)
    for path in ("/check/current_task_is_a_task/0", "/check/timer_is_on_time/0", "/pristine"):
        assert serving.get(server.url + path).text == "ok"
    server.stop()


@needs_3_13
def test_the_interpreter_is_set_up_as_the_program_was(tmp_path: pathlib.Path) -> None:
    options = ("-X", "marker=7", "-W", "ignore::FutureWarning", "-X", "utf8=1")
    with LiveServer(
        "guests:app",
        process=True,
        python=(sys.executable, *options),
        env={**os.environ, "TEST_APP_DIRECTORY": str(tmp_path), "PYTHONPATH": str(serving.ROOT)},
        app_dir=str(serving.APPS),
        contexts="interpreters",
        cores=2,
    ) as server:
        found = json.loads(serving.get(f"{server.url}/about").text)
    assert found["xoptions"]["marker"] == "7"
    assert "ignore::FutureWarning" in found["warnoptions"]
    assert "FutureWarning" in found["ignores"]
    assert found["utf8_mode"] == 1
    assert str(serving.APPS) in found["path"]
    assert found["argv"][0].endswith("__main__.py")
    assert "--contexts=interpreters" in found["argv"]
    assert found["main_thread"] is False


@needs_3_13
def test_daemon_threads_subprocesses_and_fork(start: Start) -> None:
    server = start()
    assert get(server, "/subprocess") == "child"
    assert get(server, "/fork") == "fork not supported for isolated subinterpreters"
    for _ in range(4):
        get(server, "/daemon")
    server.stop()  # The threads are still there.


@needs_3_13
def test_output_of_an_interpreter_arrives(start: Start) -> None:
    server = start(env={"PYTHONUNBUFFERED": ""})
    with Contexts(server) as contexts:
        for get_from in contexts.values():
            get_from("/print")
            get_from("/log")
        names = list(contexts)
    server.stop()
    for name in names:
        assert f"printed by {name}" in server.log  # Flushed at the end at the latest.
        assert f"logged by {name}" in server.log


@needs_3_13
def test_wsgi_runs_threads_and_counts_as_several_processes(start: Start) -> None:
    server = start("guests:wsgi")
    assert get(server, "/multiprocess") == "True"
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        waiting = [pool.submit(get, server, "/hold") for _ in range(8)]
        server.wait_for_record("holding", 8)
        (server.directory / "go").touch()
        assert len([one.result(serving.MUST_SECONDS) for one in waiting]) == 8
    server.stop()


@needs_3_13
@pytest.mark.parametrize(
    ("app", "module", "path", "text"),
    [
        ("starlette_app:app", "starlette", "/", ""),
        ("flask_app:app", "flask", "/", "hello"),
        ("django_site.asgi:application", "django", "/sync/", '"view": "sync"'),
        ("django_site.asgi:application", "django", "/async/", '"view": "async"'),
        ("django_site.wsgi:application", "django", "/sync/", '"view": "sync"'),
    ],
)
def test_frameworks(start: Start, app: str, module: str, path: str, text: str) -> None:
    serving.require(module)
    server = start(app)
    for _ in range(4):
        answer = serving.get(server.url + path)
        assert answer.status_code in (200, 404)
        assert text in answer.text
    server.stop()


# How they end.


@needs_3_13
@pytest.mark.parametrize("name", ["app", "wsgi"])
def test_term_loses_no_running_request(start: Start, name: str) -> None:
    server = start(f"guests:{name}")
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        waiting = [pool.submit(get, server, "/hold") for _ in range(8)]
        server.wait_for_record("holding", 8)
        server.process.send_signal(signal.SIGTERM)
        server.wait_for_log("Shutting down")
        (server.directory / "go").touch()
        assert len({one.result(serving.MUST_SECONDS) for one in waiting}) <= 2
    assert server.wait() == 0
    server.check_log()


@needs_3_13
def test_term_under_load_cuts_no_response_short(start: Start) -> None:
    server = start()
    with serving.visitors(server) as (served, broken):
        serving.wait_until(lambda: len(served) > 100)
        server.process.send_signal(signal.SIGTERM)
        assert server.wait() == 0
    assert broken == []
    server.check_log()


@needs_3_13
def test_quit_does_not_wait(start: Start) -> None:
    server = start()
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(get, server, "/hold") for _ in range(4)]
        server.wait_for_record("holding", 4)
        server.process.send_signal(signal.SIGQUIT)
        for one in waiting:
            with contextlib.suppress(OSError, http.client.HTTPException, AssertionError):
                one.result(serving.MUST_SECONDS)
    server.wait()
    assert "Fatal Python error" not in server.log


@needs_3_13
@pytest.mark.timeout(180)
def test_twenty_starts_end_cleanly(start: Start) -> None:
    for number in range(20):
        server = start("guests:app" if number % 2 else "guests:wsgi")
        get(server, "/daemon")
        server.stop()


@needs_3_13
def test_term_during_the_start(start: Start) -> None:
    server = start(wait=False, contexts=6)
    server.wait_for_record("startup", 0)
    server.wait_for_log(r"contexts: 6 .* interpreters")
    server.process.send_signal(signal.SIGTERM)
    assert server.wait() == 0
    server.check_log()


# How they are replaced.


@needs_3_13
def test_a_context_is_replaced_by_a_new_interpreter(start: Start) -> None:
    server = start(args=["--limit-max-requests", "25"])
    with Contexts(server) as contexts:
        before = set(contexts)
    seen = {get(server) for _ in range(40)}
    serving.wait_until(lambda: seen.add(get(server)) or len(seen | before) >= 4)
    server.stop()


@needs_3_13
def test_memory_of_replaced_contexts_is_warned_of(start: Start) -> None:
    server = start(args=["--limit-max-requests", "2"])
    serving.wait_until(
        lambda: get(server) and re.search(r"1\d contexts have ended here: the memory", server.log),
        seconds=40,
    )
    server.stop()


@needs_3_13
def test_reload_starts_a_new_process(start: Start) -> None:
    server = start()
    before = set(serving.descendants(server.pid))
    server.process.send_signal(signal.SIGHUP)
    server.wait_for_log(r"Reloaded: host \[\d+\] replaces \[\d+\]")
    assert get(server)
    serving.wait_until(lambda: len(set(serving.descendants(server.pid)) & before) == 1)
    server.stop()


@needs_3_13
def test_reload_and_replacement_lose_nobody(start: Start) -> None:
    server = start(args=["--limit-max-requests", "60"])
    with serving.visitors(server) as (served, broken):
        serving.wait_until(lambda: len(set(served)) >= 4, what="two contexts replaced")
        for _ in range(2):
            host = serving.descendants(server.pid)[1]
            server.process.send_signal(signal.SIGHUP)
            serving.wait_until(
                lambda host=host: host not in serving.descendants(server.pid), seconds=20
            )
    assert broken == []
    server.stop()


@needs_3_13
@pytest.mark.parametrize("how", ["abort", "kill"])
def test_a_host_that_dies_is_replaced(start: Start, how: str) -> None:
    server = start()
    host = serving.descendants(server.pid)[1]
    if how == "kill":
        os.kill(host, signal.SIGKILL)
    else:
        with pytest.raises((OSError, http.client.HTTPException)):
            get(server, "/abort")
    server.wait_for_log(rf"Host \[{host}\] ended with -\d+ and took its contexts along")
    with Contexts(server) as contexts:
        assert len(contexts) == 2
    server.stop()


@needs_3_13
def test_a_failed_reload_leaves_the_old_contexts(start: Start) -> None:
    server = start()
    (server.directory / "fail-import").touch()
    server.process.send_signal(signal.SIGHUP)
    server.wait_for_log("Reload failed")
    assert get(server)
    server.stop()


@needs_3_13
def test_more_and_fewer(start: Start) -> None:
    server = start()
    server.process.send_signal(signal.SIGTTIN)
    with Contexts(server, 2):
        pass
    serving.wait_until(lambda: len(server.records()) >= 3, what="a third start-up")
    server.process.send_signal(signal.SIGTTOU)
    serving.wait_until(
        lambda: any(line.startswith("shutdown") for line in server.records()), what="a shutdown"
    )
    assert get(server)
    server.stop()


@needs_3_13
def test_log_files_are_reopened_in_each(start: Start, tmp_path: pathlib.Path) -> None:
    log, old = tmp_path / "server.log", tmp_path / "server.log.1"
    (tmp_path / "logging.json").write_text(
        json.dumps(
            {
                "version": 1,
                "handlers": {"file": {"class": "logging.FileHandler", "filename": str(log)}},
                "loggers": {"ppserver": {"handlers": ["file"], "level": "INFO"}},
            }
        )
    )
    server = start(wait=False, args=["--log-config", str(tmp_path / "logging.json")])
    found = serving.wait_until(
        lambda: log.exists() and re.search(r"running on http://([\d.]+):(\d+)", log.read_text())
    )
    server.host, server.port = found[1], int(found[2])
    with Contexts(server) as contexts:
        log.rename(old)
        server.process.send_signal(signal.SIGUSR1)
        # The supervisor, the host, and both interpreters.
        serving.wait_until(
            lambda: log.exists() and log.read_text().count("Log files reopened.") >= 4
        )
        for name, get_from in contexts.items():
            get_from("/log")
            assert f"logged by {name}" in log.read_text()
            assert f"logged by {name}" not in old.read_text()
    server.stop()


# What is refused.


@needs_3_13
@pytest.mark.parametrize(
    ("module", "refused"),
    [
        ("numpy", r"numpy\.\w+\.\w+"),
        ("pydantic", r"pydantic_core\._pydantic_core"),
        ("_testsinglephase", "_testsinglephase"),
    ],
)
def test_a_module_that_refuses_is_named(
    start: Start, tmp_path: pathlib.Path, module: str, refused: str
) -> None:
    if module == "_testsinglephase":
        pytest.importorskip(module)
    else:
        serving.require(module)
    (tmp_path / "refused.py").write_text(f"import {module}\nfrom guests import app\n")
    env = {"PYTHONPATH": f"{serving.APPS}{os.pathsep}{serving.ROOT}"}
    server = start("refused:app", wait=False, args=["--app-dir", str(tmp_path)], env=env)
    log = failed(server)
    found = re.findall(
        rf"error: module {refused} does not support interpreters with their own GIL", log
    )
    assert len(found) == 1, log  # Said once, whatever the number of contexts.
    other = "threads" if serving.FREE_THREADED else "processes"
    assert f"hint: --contexts {other} can load it" in log
    assert "Traceback" not in log


@needs_3_13
def test_a_refusal_in_lifespan_is_named_too(start: Start) -> None:
    pytest.importorskip("_testsinglephase")
    directory = pathlib.Path(start(wait=False).directory)
    (directory / "refuse-in-lifespan").touch()
    server = start(wait=False, lifespan="on")
    assert "module _testsinglephase does not support interpreters" in failed(server)


@needs_3_13
def test_an_application_that_fails_is_reported(start: Start, tmp_path: pathlib.Path) -> None:
    (tmp_path / "fail-import").touch()
    log = failed(start(wait=False))
    assert log.count("ppserver: error: importing guests failed: ExpectedError") == 1


@needs_3_13
def test_shared_numbers_that_would_not_be_are_refused(start: Start, tmp_path: pathlib.Path) -> None:
    (tmp_path / "counts.py").write_text(
        "from ppserver.shared import Counter\nfrom guests import app\ncounter = Counter()\n"
    )
    env = {"PYTHONPATH": f"{serving.APPS}{os.pathsep}{serving.ROOT}"}
    server = start("counts:app", wait=False, args=["--app-dir", str(tmp_path)], env=env)
    log = failed(server)
    assert log.count("only this one would see it") == 1 + log.count("Traceback")
    assert "importing counts failed: RuntimeError" in log


@needs_3_13
def test_what_cannot_go_to_another_interpreter_is_a_wrong_setting() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None: ...

    with pytest.raises(ConfigError, match=r"^app: .* cannot be given") as caught:
        Config(app, contexts="interpreters")
    assert "import string" in caught.value.hint
    with pytest.raises(ConfigError, match=r"^loop: uvloop") as caught:
        Config("guests:app", contexts="interpreters", loop="uvloop")
    assert "--loop asyncio" in caught.value.hint


@pytest.mark.skipif(sys.version_info >= (3, 13), reason="refused before Python 3.13")
def test_refused_before_3_13_with_the_reason(start: Start) -> None:
    server = start(wait=False)
    assert server.wait() == 2
    assert "contexts: 'interpreters' needs Python 3.13: " in server.log
    reason = "share one GIL" if sys.version_info < (3, 12) else "asyncio corrupts memory"
    assert reason in server.log
    assert "hint: --contexts processes" in server.log
