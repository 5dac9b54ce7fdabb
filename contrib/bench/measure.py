"""Runs one server under one load and says what it cost.

The main figure is processor time per request over the whole process tree, read from the kernel's
per-process CPU clocks in nanoseconds (they include threads that have ended). Requests per second
and latency come from wrk. What else used the server's core meanwhile is measured too, because a
figure taken on a busy machine is worth nothing.
"""

import dataclasses
import os
import random
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

from . import generators
from .generators import HOST, MeasureError
from .peers import BUILD, HERE, Peer, SetupError, command_line
from .prepare import environ_of
from .workloads import Workload

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Sample:
    """One measured stretch."""

    cpu_us: float  # per request, whole tree
    rate: float  # requests a second
    p50_us: float
    p99_us: float
    p999_us: float
    pss_kb: int
    worker_kb: float  # PSS of a worker's own process
    response_bytes: float  # head and body, as wrk counted them
    requests: int
    errors: int
    user_us: float  # of cpu_us, what was not the kernel's
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


def tree_user_s(root: int) -> float:
    """Time outside the kernel, of living processes, in steps of a clock tick each."""
    ticks = 0
    for pid in tree(root):
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
        except OSError:
            continue
        ticks += int(stat.rpartition(")")[2].split()[11])
    return ticks / TICKS_PER_SECOND


def tree_memory_kb(root: int) -> dict[str, int]:
    """Sums of smaps_rollup over the tree."""
    total: dict[str, int] = {}
    for pid in tree(root):
        for name, size in memory_kb(pid).items():
            total[name] = total.get(name, 0) + size
    return total


def memory_kb(pid: int) -> dict[str, int]:
    """smaps_rollup of a process; nothing if it has ended."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    except OSError:
        return {}
    parts = (line.partition(":") for line in lines)
    return {name: int(rest.split()[0]) for name, _, rest in parts}


def worker_pss_kb(root: int, workers: int) -> float:
    """What a worker's process takes: the mean of those that have used the processor most."""
    processes = sorted(tree(root), key=cpu_ns, reverse=True)[:workers]
    return sum(memory_kb(pid).get("Pss", 0) for pid in processes) / len(processes)


def core_busy_s(cores: int | str) -> float:
    """Seconds in which cores ("0" or "0,1") were not idle, stolen time included."""
    wanted = [f"cpu{core}" for core in str(cores).split(",")]
    found = []
    for line in Path("/proc/stat").read_text().splitlines():
        fields = line.split()
        if fields[0] in wanted:
            user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, fields[1:9])
            found.append((user + nice + system + irq + softirq + steal) / TICKS_PER_SECOND)
    if len(found) != len(wanted):
        raise MeasureError(f"there is no core {cores}")
    return sum(found)


def children_s() -> float:
    """Processor time of children that have ended: the load generators' before all."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


# -- a server --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Placement:
    server_core: int
    load_core: int
    python: str
    ppserver: Path

    def server_cores(self, workers: int) -> str:
        """One worker has a core of its own; more of them share all with the load."""
        return str(self.server_core) if workers == 1 else f"{self.server_core},{self.load_core}"

    def load_cores(self, workers: int) -> str:
        return str(self.load_core) if workers == 1 else self.server_cores(workers)


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
    cores: str = "",
    more: Mapping[str, str] | None = None,
    workers: int = 1,
    lifespan: bool = False,
) -> Iterator[tuple[int, int]]:
    """A server answering on a port of its own: yields (pid, port), and ends it whatever happens."""
    port = free_port()
    line, environ = command_line(
        peer, app, interface, port, place.python, place.ppserver, workers, lifespan
    )
    cores = cores or (str(place.server_core) if pinned else "")
    log = BUILD / "logs" / f"{peer.name}-{app.replace(':', '-')}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*generators.pinned(cores), *line, *extra],
            env={**environ, **(more or {})},
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
                if status != 200 or workload.expect not in (None, body):
                    raise MeasureError(
                        f"wrong answer: status {status}, {len(body)} bytes {body[:60]!r}"
                    )
        if workload.closes and stream.read(1):
            raise MeasureError("the connection stays open although the client asked to close it")


def ask_once(workload: Workload, port: int) -> socket.socket:
    """A connection that has been served, and stays."""
    sock = socket.create_connection((HOST, port), timeout=10)
    verify_on(sock, workload, port)
    return sock


@contextmanager
def neighbours(count: int, cores: str) -> Iterator[list[int]]:
    """Other processes on the server's cores, which compute without an end: yields their pids."""
    line = [*generators.pinned(cores), sys.executable, "-c", "while True: pass"]
    processes = [subprocess.Popen(line, stdin=subprocess.DEVNULL) for _ in range(count)]
    try:
        yield [process.pid for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()


def verify_on(sock: socket.socket, workload: Workload, port: int) -> None:
    sock.sendall(workload.request(f"{HOST}:{port}"))
    with sock.makefile("rb") as stream:
        status, _, body = read_response(stream)
    if status != 200 or workload.expect not in (None, body):
        raise MeasureError(f"an idle connection got status {status}, {len(body)} bytes")


def capacity(peer: Peer, workload: Workload, place: Placement) -> float:
    """Requests a second that the server can take, by a short turn."""
    return measure(peer, dataclasses.replace(workload, share=0), place, 1).rate


def measure(
    peer: Peer,
    workload: Workload,
    place: Placement,
    seconds: float,
    rate: float = 0,
    warm_up: bool = True,
) -> Sample:
    """Starts the server anew, verifies, warms up for a second, measures, ends it.

    With a rate (requests a second) they fall due at fixed times.
    """
    if peer.interfaces != ("asgi", "wsgi") and workload.interface not in peer.interfaces:
        raise SetupError(f"{peer.name} does not speak {workload.interface}")
    cores = place.server_cores(workload.workers)
    load_cores = place.load_cores(workload.workers)
    with (
        running(
            peer,
            workload.app,
            workload.interface,
            place,
            cores=cores,
            more=environ_of(workload.needs),
            workers=workload.workers,
            lifespan=workload.lifespan,
        ) as (pid, port),
        neighbours(workload.neighbours, cores) as besides,
    ):
        verify(workload, port)
        idle: list[socket.socket] = []
        try:
            idle += [ask_once(workload, port) for _ in range(workload.idle)]
            if warm_up:
                generators.wrk(workload, port, 1, load_cores)

            def look() -> tuple[float, int, float, float, float]:
                used = (tree_cpu_ns(pid), tree_user_s(pid))
                busy = core_busy_s(cores) - sum(map(cpu_ns, besides)) / 1e9
                return busy, *used, children_s(), time.monotonic()

            if rate:
                result, before = generators.paced(workload, port, seconds, load_cores, rate, look)
            else:
                before = look()
                result = generators.wrk(workload, port, seconds, load_cores)
            busy, cpu, user, load, took = (
                after - then for after, then in zip(look(), before, strict=True)
            )
            others = busy - cpu / 1e9
            if cores == load_cores:
                others -= load
            if idle:
                verify_on(idle[0], workload, port)
        finally:
            for sock in idle:
                sock.close()
        memory = tree_memory_kb(pid)
        worker_kb = worker_pss_kb(pid, workload.workers)
        verify(workload, port)
    return Sample(
        cpu_us=cpu / 1000 / result.requests,
        rate=result.requests / result.seconds,
        p50_us=result.p50_us,
        p99_us=result.p99_us,
        p999_us=result.p999_us,
        pss_kb=memory.get("Pss", 0),
        worker_kb=worker_kb,
        response_bytes=result.response_bytes,
        requests=result.requests,
        errors=result.errors,
        user_us=user * 1e6 / result.requests,
        foreign=max(0.0, others / took / len(cores.split(","))),
    )
