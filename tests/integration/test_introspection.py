"""What Python's own tools see of a context, from within and from outside, from 3.14 on."""

from __future__ import annotations

import pathlib
import re
import subprocess
import sys
from collections.abc import Callable

import pytest
import rawhttp
import serving

pytestmark = [
    pytest.mark.skipif(serving.PEER != "ppserver", reason="about ppserver's Tasks and contexts"),
    pytest.mark.skipif(sys.version_info < (3, 14), reason="these tools came with Python 3.14"),
]


def looked_at(program: str, *args: str) -> str:
    """What a process says that looks into another one; skips where that is not allowed."""
    command = [sys.executable, *program.split(), *args]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    text = result.stdout + result.stderr
    if "ermission" in text or "not permitted" in text:
        pytest.skip(f"nobody may look into a process here: {text.strip()[-200:]}")
    assert result.returncode == 0, text
    return text


def stack(task: str) -> list[str]:
    """Of a request that waits: a Task of its own drives a coroutine of the server's."""
    bottom = [] if task == "worker" else ["ppserver_request"]
    return ["wait_inside", "answer", "app", *bottom]


@pytest.mark.parametrize("task", ["worker", "eager", "plain"])
def test_call_graphs_show_the_application(
    serve: Callable[..., serving.Server], tmp_path: pathlib.Path, task: str
) -> None:
    with serving.running("introspected:app", tmp_path, loop="asyncio", task=task) as server:
        with rawhttp.Raw(server) as waiting:
            waiting.request("/wait")
            server.wait_for_record("waiting")
            graph = serving.get(f"{server.url}/graph").text
            serving.get(f"{server.url}/release")
            assert waiting.read_response().status == 200
    frames = re.findall(r"in (?:async )?(\S+?)\(\)", graph)
    wanted = stack(task)
    assert frames[-len(wanted) :] == wanted, graph


@pytest.mark.parametrize("task", ["worker", "plain"])
def test_tasks_are_seen_from_outside(tmp_path: pathlib.Path, task: str) -> None:
    """`python -m asyncio` takes each Task's coroutine for one of the interpreter's own."""
    with serving.running("introspected:app", tmp_path, loop="asyncio", task=task) as server:
        assert serving.get(server.url).text == "ok"  # It leaves an idle worker behind.
        with rawhttp.Raw(server) as waiting:
            waiting.request("/group")
            server.wait_for_record("waiting")
            seen = [looked_at("-m asyncio", tool, str(server.pid)) for tool in ("ps", "pstree")]
            serving.get(f"{server.url}/release")
            assert waiting.read_response().status == 200
    for text in seen:
        assert "child of a request" in text, text
        assert "wait_inside" in text, text
        assert "Runner" not in text, text


@pytest.mark.parametrize("task", ["eager", "plain"])
def test_whole_stacks_are_seen_from_outside(tmp_path: pathlib.Path, task: str) -> None:
    with serving.running("introspected:app", tmp_path, loop="asyncio", task=task) as server:
        with rawhttp.Raw(server) as waiting:
            waiting.request("/wait")
            server.wait_for_record("waiting")
            ps, pstree = (
                looked_at("-m asyncio", tool, str(server.pid)) for tool in ("ps", "pstree")
            )
            serving.get(f"{server.url}/release")
            assert waiting.read_response().status == 200
    assert " -> ".join(stack(task)) in ps, ps
    below = re.findall(r"(\w+) /", pstree)
    where = below.index("ppserver_request")
    assert below[where : where + 4] == stack(task)[::-1], pstree


def block(page: str, marker: str) -> str:
    """The code block of a page that contains the marker."""
    blocks = re.findall(r"```python\n(.*?)```", (serving.ROOT / page).read_text(), re.DOTALL)
    (found,) = [text for text in blocks if marker in text]
    return str(found)


@pytest.mark.parametrize("task", ["worker", "eager", "plain"])
def test_a_script_tells_what_requests_wait_for(tmp_path: pathlib.Path, task: str) -> None:
    """From outside, with the script of the documentation: whole stacks, whatever kind of Task."""
    script, out = tmp_path / "waiting.py", tmp_path / "waiting.txt"
    script.write_text(
        block("docs/explanation/worker-task.md", "print_call_graph").replace(
            "/tmp/waiting.txt", str(out)
        )
    )
    with serving.running("introspected:app", tmp_path, loop="asyncio", task=task) as server:
        with rawhttp.Raw(server) as waiting:
            waiting.request("/wait")
            server.wait_for_record("waiting")
            looked_at("-c", f"import sys; sys.remote_exec({server.pid}, {str(script)!r})")
            # An idle context runs it when its watchdog asks the loop, or a request comes.
            serving.wait_until(
                lambda: serving.get(server.url) and out.exists() and "app()" in out.read_text(),
                what="the script has run",
            )
            serving.get(f"{server.url}/release")
            assert waiting.read_response().status == 200
    frames = re.findall(r"in (?:async )?(\S+?)\(\)", out.read_text())
    where = frames.index("wait_inside")
    wanted = stack(task)
    assert frames[where : where + len(wanted)] == wanted, out.read_text()


@pytest.mark.parametrize("interface", ["asgi", "wsgi"])
def test_a_script_runs_in_a_context(tmp_path: pathlib.Path, interface: str) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\n"
        f"with open({str(tmp_path / 'record')!r}, 'a') as record:\n"
        "    print('ppserver' in sys.modules, file=record)\n"
    )
    app = "introspected:app" if interface == "asgi" else "lives:wsgi"
    with serving.running(
        app, tmp_path, contexts=2, interface=interface, args=["--contexts", "processes"]
    ) as server:
        contexts = serving.contexts(server.pid)
        assert len(contexts) == 2
        for pid in contexts:
            code = f"import sys; sys.remote_exec({pid}, {str(script)!r})"
            looked_at("-c", code)
        # The interpreter runs it when it next looks for signals: an idle context has to wake up.
        serving.wait_until(
            lambda: serving.get(server.url) and server.records().count("True") == 2,
            what="the script has run in both contexts",
        )
