"""What service managers and containers do: process 1, closed descriptors, another user."""

from __future__ import annotations

import os
import pathlib
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable

import pytest
import serving
from rawhttp import Raw

from ppserver.observe.readiness import VARIABLE, Listener

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(serving.PEER != "ppserver", reason="the supervisor of ppserver"),
]

Start = Callable[[int], serving.Server]
NAMESPACE = ["unshare", "--pid", "--fork", "--mount-proc"]


@pytest.fixture(scope="module")
def namespaces() -> None:
    """Skips where they cannot be made."""
    if shutil.which("unshare") is None or shutil.which("nsenter") is None:
        pytest.skip("no unshare, or no nsenter")
    done = subprocess.run([*NAMESPACE, "true"], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"no process namespaces here: {done.stderr.strip()}")


@pytest.fixture
def start(namespaces: None, tmp_path: pathlib.Path, started: list[serving.Server]) -> Start:
    def run(contexts: int) -> serving.Server:
        command = [*NAMESPACE, sys.executable, "-m", "ppserver", "rebels:app", "--port", "0"]
        command += ["--app-dir", str(serving.APPS)]
        command += ["--contexts", "processes"]  # Elsewhere the host is the one that crashes.
        if contexts > 1:
            command += ["--cores", str(contexts)]
        server = serving.Server(command, serving._environment(tmp_path, {}), tmp_path)
        started.append(server)
        server.wait_started()
        return server

    return run


def ask(server: serving.Server, path: str = "/") -> int:
    """The body: a process number, as it is inside."""
    with Raw(server) as raw:
        return int(raw.ask(path).body)


def outer_number(parent: int, inner: int) -> int:
    """That of a child by its number within the namespace."""
    for pid in serving.children(parent):
        for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("NSpid:") and int(line.split()[-1]) == inner:
                return pid
    raise LookupError(inner)


@pytest.mark.parametrize("contexts", [1, 2])
def test_process_1_keeps_house(start: Start, contexts: int) -> None:
    server = start(contexts)
    (first,) = serving.children(server.pid)
    assert ask(server) != 1
    everybody = len(serving.children(first))
    orphan = outer_number(first, ask(server, "/orphan"))
    (server.directory / "orphan-may-end").touch()
    serving.wait_until(lambda: orphan not in serving.children(first), what="it is reaped")
    assert len(serving.children(first)) == everybody
    # A context that crashes.
    victim = ask(server)
    os.kill(outer_number(first, victim), signal.SIGKILL)
    server.wait_for_log(rf"\[{victim}\] ended by signal 9: replacing it")
    serving.wait_until(lambda: len(serving.contexts(first)) == contexts)
    before = serving.children(first)
    os.kill(first, signal.SIGHUP)
    server.wait_for_log("Reloaded: host")
    serving.wait_until(
        lambda: (
            len(serving.children(first)) == everybody
            and not set(before) & set(serving.children(first))
        )
    )
    assert ask(server) != 1
    os.kill(first, signal.SIGTERM)
    assert server.wait() == 0
    server.check_log()


@pytest.mark.parametrize("contexts", [1, 2])
def test_process_1_is_stopped_from_within(start: Start, contexts: int) -> None:
    """Where the kernel delivers only what it has a handler for."""
    server = start(contexts)
    (first,) = serving.children(server.pid)
    inside = ["nsenter", "--target", str(first), "--pid", "kill"]
    subprocess.run([*inside, "-HUP", "1"], check=True)
    server.wait_for_log("Reloaded: host")
    subprocess.run([*inside, "-TERM", "1"], check=True)
    assert server.wait() == 0
    server.check_log()


def test_a_signal_at_the_very_end_does_not_change_the_exit_code(
    tmp_path: pathlib.Path, started: list[serving.Server]
) -> None:
    """A second SIGTERM of a service manager, or the SIGHUP of a terminal that is closed."""
    program = (
        "import atexit, os, signal, sys; from ppserver import cli\n"
        "def late():\n"
        "    for number in (signal.SIGHUP, signal.SIGTERM):\n"
        "        os.kill(os.getpid(), number)\n"
        "if os.getppid() == int(os.environ['TESTS']): atexit.register(late)\n"
        "sys.exit(cli.main())"
    )
    command = [sys.executable, "-c", program, "rebels:app", "--port", "0", "--cores", "2"]
    command += ["--app-dir", str(serving.APPS), "--contexts", "processes"]
    environ = serving._environment(tmp_path, {"TESTS": str(os.getpid())})
    server = serving.Server(command, environ, tmp_path)
    started.append(server)
    server.wait_started()
    server.stop()


@pytest.mark.parametrize(
    ("closed", "contexts"), [("0", 2), ("1", 2), ("2", 2), ("012", 1), ("012", 2)]
)
def test_standard_descriptors_closed_at_the_start(
    tmp_path: pathlib.Path, closed: str, contexts: int
) -> None:
    """They lead to /dev/null; nothing that the server opens gets their numbers."""
    path = tmp_path / "socket"
    command = [sys.executable, "-m", "ppserver", "rebels:app", "--app-dir", str(serving.APPS)]
    command += ["--uds", str(path), "--cores", str(contexts), "--contexts", "processes"]
    if contexts == 1:
        command[-4:] = ["--supervise", "never"]
    redirect = {"0": "0<&-", "1": "1>&-", "2": "2>&-"}
    script = f'exec "$@" {" ".join(redirect[fd] for fd in closed)}'
    ready = Listener()
    process = subprocess.Popen(
        ["sh", "-c", script, "sh", *command],
        env=serving._environment(tmp_path, {VARIABLE: ready.path}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        assert ready.urls(serving.MUST_SECONDS) == [f"unix:{path}"]
        family = serving.descendants(process.pid)
        assert len(family) == (1 if contexts == 1 else contexts + 2)
        for pid in family:
            for fd in closed:
                assert os.readlink(f"/proc/{pid}/fd/{fd}") == "/dev/null"
        transport = serving.httpx.HTTPTransport(uds=str(path))
        with serving.client("http://x", transport=transport) as client:
            assert int(client.get("/write").text) in family
            assert int(client.get("/").text) in family
        process.terminate()
        output, _ = process.communicate(timeout=serving.MUST_SECONDS)
        assert process.returncode == 0
        if closed == "012":
            assert output == b""
        elif closed != "2":
            assert b"Finished" in output
        assert b"Traceback" not in output
    finally:
        ready.close()
        if process.poll() is None:
            process.kill()


def test_a_start_that_fails_with_descriptors_closed(tmp_path: pathlib.Path) -> None:
    command = [sys.executable, "-m", "ppserver", "nowhere:app", "--port", "0"]
    script = 'exec "$@" 0<&- 1>&- 2>&-'
    for more in ([], ["--cores", "2"], ["--no-such-option"]):
        done = subprocess.run(
            ["sh", "-c", script, "sh", *command, *more],
            env=serving._environment(tmp_path, {}),
            timeout=serving.MUST_SECONDS,
            check=False,
        )
        assert done.returncode == (2 if "--no-such-option" in more else 3)


def readable_interpreter(directory: pathlib.Path) -> list[str]:
    """What to begin a command with, so that another user can read this Python. Where that lies in
    somebody's home, the command gets a view of its own in which the home has nothing else."""
    wanted = {pathlib.Path(one) for one in (sys.base_prefix, sys.prefix, serving.ROOT)}
    closed = {
        next((p for p in reversed(one.parents) if not p.stat().st_mode & 0o001), None)
        for one in wanted
    }
    lines = []
    for home in closed - {None}:
        inside = [str(one) for one in sorted(wanted) if home in one.parents]
        kept = [str(directory / f"kept-{number}") for number in range(len(inside))]
        for one, there in zip(inside, kept, strict=True):
            lines.append(f"mkdir {there} && mount --bind {one} {there}")
        lines.append(f"mount -t tmpfs -o mode=755 none {home}")
        for one, there in zip(inside, kept, strict=True):
            lines.append(f"mkdir -p {one} && mount --move {there} {one} && rmdir {there}")
    view = ["unshare", "--mount", "sh", "-ec", "\n".join([*lines, 'exec "$@"']), "sh"]
    prefix = view if lines else []
    program = "import os; os.setuid(65534); import asyncio, ppserver._native"
    done = subprocess.run(
        [*prefix, sys.executable, "-c", program], cwd=serving.ROOT, capture_output=True, check=False
    )
    if done.returncode != 0:
        pytest.skip(f"this Python is not readable by another user: {done.stderr.decode()}")
    return prefix


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
@pytest.mark.parametrize(("count", "supervise"), [(1, "never"), (1, "auto"), (2, "auto")])
def test_becomes_another_user(
    tmp_path: pathlib.Path, started: list[serving.Server], count: int, supervise: str
) -> None:
    readable = readable_interpreter(tmp_path)
    for directory in (tmp_path, *tmp_path.parents):
        if directory.owner() == "root" and directory != pathlib.Path("/"):
            directory.chmod(directory.stat().st_mode | 0o005)
    tmp_path.chmod(0o777)
    root_only = tmp_path / "run"  # Where the new user may remove nothing.
    root_only.mkdir(mode=0o755)
    args = ["--user", "nobody", "--group", "12345", "--pid", str(root_only / "pid")]
    args += ["--bind", "127.0.0.1:0", "--bind", f"unix:{root_only / 'socket'}"]
    args += ["--supervise", supervise]
    place = "processes" if count > 1 else "auto"
    server = serving.launch(
        "lives:app", tmp_path, contexts=count, place=place, args=args, prefix=readable
    )
    started.append(server)
    server.wait_started()
    assert len(list(root_only.iterdir())) == 2
    who = serving.get(f"{server.url}/who").text.split(" ", 2)
    assert who[0] != "0"
    assert who[1] == "12345"
    server.process.send_signal(signal.SIGTERM)
    assert server.wait() == 0
    # The supervisor stays who it was and can remove them.
    assert len(list(root_only.iterdir())) == (2 if supervise == "never" else 0)
