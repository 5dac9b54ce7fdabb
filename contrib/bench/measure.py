"""Runs one server under one load and says what it cost.

The main figure is processor time per request over the whole process tree, read from the kernel's
per-process CPU clocks in nanoseconds (they include threads that have ended). Requests per second
and latency come from wrk. What else used the server's core meanwhile is measured too, because a
figure taken on a busy machine is worth nothing.
"""

import json
import os
import random
import resource
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

from .peers import BUILD, HERE, Peer, SetupError, command_line
from .workloads import Workload

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
HOST = "127.0.0.1"


class MeasureError(Exception):
    """A server did not start, or does not answer as it must."""


@dataclass(frozen=True)
class Sample:
    """One measured stretch."""

    cpu_us: float  # per request, whole tree
    rate: float  # requests a second
    p50_us: float
    p99_us: float
    pss_kb: int
    response_bytes: float  # head and body, as wrk counted them
    requests: int
    errors: int
    foreign: float  # share of the server's core that something else used

    def as_dict(self) -> dict[str, float]:
        return asdict(self)


# -- the process tree ------------------------------------------------------------------------------


def tree(root: int) -> list[int]:
    """`root` and all its living descendants."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            stat = Path("/proc", entry, "stat").read_text()
        except OSError:
            continue
        parent = int(stat.rpartition(")")[2].split()[1])
        children.setdefault(parent, []).append(int(entry))
    found, queue = [], [root]
    while queue:
        pid = queue.pop()
        found.append(pid)
        queue += children.get(pid, [])
    return found


def cpu_ns(pid: int) -> int:
    """Processor time of a process, all its threads, the ended ones too."""
    # The clock id that clock_getcpuclockid(3) would give.
    return time.clock_gettime_ns((~pid << 3) | 2)


def tree_cpu_ns(root: int) -> int:
    total = 0
    for pid in tree(root):
        try:
            total += cpu_ns(pid)
        except OSError:
            continue  # it ended between the two looks
    return total


def tree_memory_kb(root: int) -> dict[str, int]:
    """Sums of smaps_rollup over the tree."""
    total: dict[str, int] = {}
    for pid in tree(root):
        try:
            text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except OSError:
            continue
        for line in text.splitlines()[1:]:
            name, _, rest = line.partition(":")
            total[name] = total.get(name, 0) + int(rest.split()[0])
    return total


def core_busy_s(core: int) -> float:
    """Seconds in which a core was not idle, stolen time included."""
    for line in Path("/proc/stat").read_text().splitlines():
        fields = line.split()
        if fields[0] == f"cpu{core}":
            user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, fields[1:9])
            return (user + nice + system + irq + softirq + steal) / TICKS_PER_SECOND
    raise MeasureError(f"there is no core {core}")


# -- a server --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Placement:
    server_core: int
    load_core: int
    python: str
    ppserver: Path


def free_port() -> int:
    """A port below the ephemeral range, so that no outgoing connection takes it meanwhile."""
    for port in random.sample(range(20000, 32000), 100):
        with socket.socket() as sock:
            try:
                sock.bind((HOST, port))
            except OSError:
                continue
            return port
    raise MeasureError("no free port between 20000 and 32000")


def raise_fd_limit() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for wanted in (65536, hard):
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, max(wanted, hard)))
            return
        except (ValueError, OSError):
            continue
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextmanager
def running(
    peer: Peer,
    app: str,
    interface: str,
    place: Placement,
    extra: tuple[str, ...] = (),
    pinned: bool = True,
) -> Iterator[tuple[int, int]]:
    """A server answering on a port of its own: yields (pid, port), and ends it whatever happens."""
    port = free_port()
    line, environ = command_line(peer, app, interface, port, place.python, place.ppserver)
    pin = ["taskset", "-c", str(place.server_core)] if pinned else []
    log = BUILD / "logs" / f"{peer.name}-{app}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*pin, *line, *extra],
            env=environ,
            cwd=HERE,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            wait_until_up(process, port, log)
            yield process.pid, port
        finally:
            end(process)


def wait_until_up(process: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if process.poll() is not None:
            tail = log.read_text(errors="replace").strip()[-600:]
            raise MeasureError(f"the server ended with {process.returncode} at start: {tail}")
        try:
            socket.create_connection((HOST, port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.02)
    raise MeasureError("the server did not listen within 20 s")


def end(process: "subprocess.Popen[bytes]") -> None:
    family = tree(process.pid)
    process.terminate()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for pid in family[1:]:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


# -- is the answer right? --------------------------------------------------------------------------


def read_response(stream: BinaryIO) -> tuple[int, dict[str, str], bytes]:
    status_line = stream.readline()
    if not status_line:
        raise MeasureError("the connection was closed instead of an answer")
    status = int(status_line.split()[1])
    headers: dict[str, str] = {}
    while (line := stream.readline()) not in (b"\r\n", b""):
        name, _, value = line.decode("latin-1").partition(":")
        headers[name.strip().lower()] = value.strip()
    if headers.get("transfer-encoding", "").lower() == "chunked":
        body = b""
        while size := int(stream.readline().split(b";")[0], 16):
            body += stream.read(size)
            stream.readline()
        stream.readline()
        return status, headers, body
    return status, headers, stream.read(int(headers.get("content-length", "0")))


def verify(workload: Workload, port: int) -> None:
    """Two rounds of the very request that will be measured, on one connection."""
    request = workload.request(f"{HOST}:{port}") * workload.pipeline
    with socket.create_connection((HOST, port), timeout=10) as sock, sock.makefile("rb") as stream:
        for _ in range(1 if workload.closes else 2):
            sock.sendall(request)
            for _ in range(workload.pipeline):
                status, _, body = read_response(stream)
                if status != 200 or body != workload.expect:
                    raise MeasureError(
                        f"wrong answer: status {status}, {len(body)} bytes {body[:60]!r}"
                    )
        if workload.closes and stream.read(1):
            raise MeasureError("the connection stays open although the client asked to close it")


# -- the load --------------------------------------------------------------------------------------

DONE_LUA = """
function done(summary, latency, requests)
  io.write(string.format(
    '@@{"requests":%d,"us":%d,"bytes":%d,"connect":%d,"read":%d,"write":%d,"status":%d,' ..
    '"timeout":%d,"p50":%d,"p99":%d}\\n',
    summary.requests, summary.duration, summary.bytes, summary.errors.connect,
    summary.errors.read, summary.errors.write, summary.errors.status, summary.errors.timeout,
    latency:percentile(50), latency:percentile(99)))
end
"""


def lua_string(data: bytes) -> str:
    return '"' + "".join(f"\\{byte:03d}" for byte in data) + '"'


def wrk_script(workload: Workload, port: int) -> Path:
    request = workload.request(f"{HOST}:{port}") * workload.pipeline
    # Not function request(): wrk would call it for every request, and be the slower side sooner.
    text = f"local r = {lua_string(request)}\nwrk.format = function() return r end\n" + DONE_LUA
    path = BUILD / "lua" / f"{workload.name}-{os.getpid()}.lua"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def wrk(workload: Workload, port: int, seconds: float, core: int, script: Path) -> dict[str, int]:
    whole = max(1, round(seconds))
    done = subprocess.run(
        [
            "taskset",
            "-c",
            str(core),
            "wrk",
            "-t1",
            f"-c{workload.connections}",
            f"-d{whole}s",
            "--timeout",
            "10s",
            "-s",
            str(script),
            f"http://{HOST}:{port}{workload.path}",
        ],
        capture_output=True,
        text=True,
    )
    for line in done.stdout.splitlines():
        if line.startswith("@@"):
            result: dict[str, int] = json.loads(line[2:])
            return result
    raise MeasureError(f"wrk said: {(done.stdout + done.stderr).strip()[-400:]}")


def measure(peer: Peer, workload: Workload, place: Placement, seconds: float) -> Sample:
    """Starts the server anew, verifies, warms up, measures, ends it."""
    if peer.interfaces != ("asgi", "wsgi") and workload.interface not in peer.interfaces:
        raise SetupError(f"{peer.name} does not speak {workload.interface}")
    with running(peer, workload.app, workload.interface, place) as (pid, port):
        verify(workload, port)
        script = wrk_script(workload, port)
        try:
            wrk(workload, port, 1, place.load_core, script)
            busy, cpu = core_busy_s(place.server_core), tree_cpu_ns(pid)
            began = time.monotonic()
            result = wrk(workload, port, seconds, place.load_core, script)
            took = time.monotonic() - began
            cpu = tree_cpu_ns(pid) - cpu
            busy = core_busy_s(place.server_core) - busy
        finally:
            script.unlink()
        memory = tree_memory_kb(pid)
        verify(workload, port)
    requests = result["requests"]
    if requests == 0:
        raise MeasureError("no request was answered")
    errors = sum(result[kind] for kind in ("connect", "read", "write", "status", "timeout"))
    return Sample(
        cpu_us=cpu / 1000 / requests,
        rate=requests / (result["us"] / 1e6),
        p50_us=result["p50"],
        p99_us=result["p99"],
        pss_kb=memory.get("Pss", 0),
        response_bytes=result["bytes"] / requests,
        requests=requests,
        errors=errors,
        foreign=max(0.0, (busy - cpu / 1e9) / took),
    )
