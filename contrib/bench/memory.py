"""What an idle connection costs in memory.

Connections are opened from several loopback addresses (one address has too few ports), each makes
one request, reads its answer and stays. The slope between the steps is what a connection costs the
server; the kernel's socket buffers are not in it.
"""

import resource
import socket
import time
from typing import Any

from .generators import HOST, MeasureError
from .measure import Placement, running, tree_memory_kb
from .peers import Peer
from .workloads import Workload

STEPS = (1000, 5000, 15000)
SOURCES = 8


def open_one(workload: Workload, port: int, source: str) -> socket.socket:
    sock = socket.socket()
    sock.setsockopt(socket.IPPROTO_IP, 24, 1)  # IP_BIND_ADDRESS_NO_PORT: choose it at connect
    sock.bind((source, 0))
    sock.settimeout(10)
    try:
        sock.connect((HOST, port))
        sock.sendall(workload.request(f"{HOST}:{port}"))
        seen = b""
        while workload.expect not in seen:
            part = sock.recv(65536)
            if not part:
                raise MeasureError("the connection was closed instead of an answer")
            seen += part
    except (OSError, MeasureError):
        sock.close()
        raise
    sock.settimeout(None)
    return sock


def settle(pid: int) -> dict[str, int]:
    """Memory once it has stopped changing, or after two seconds."""
    before = tree_memory_kb(pid)
    for _ in range(4):
        time.sleep(0.5)
        now = tree_memory_kb(pid)
        if abs(now["Pss_Anon"] - before["Pss_Anon"]) < 64:
            return now
        before = now
    return before


def idle_connections(
    peer: Peer, workload: Workload, place: Placement, steps: tuple[int, ...] = STEPS
) -> dict[str, Any]:
    if resource.getrlimit(resource.RLIMIT_NOFILE)[0] < steps[-1] + 100:
        raise MeasureError("the limit on open files is too low for this")
    held: list[socket.socket] = []
    points: list[dict[str, int]] = []
    with running(peer, workload.app, workload.interface, place) as (pid, port):
        try:
            for step in (0, *steps):
                while len(held) < step:
                    held.append(open_one(workload, port, f"127.0.0.{1 + len(held) % SOURCES}"))
                memory = settle(pid)
                points.append(
                    {"connections": step, "pss_kb": memory["Pss"], "anon_kb": memory["Pss_Anon"]}
                )
            # They must still be served, or the figure is of something else.
            alive = sum(still_answers(sock, workload, port) for sock in held[:: steps[-1] // 100])
        finally:
            for sock in held:
                sock.close()
    if alive < 100:
        raise MeasureError(f"only {alive} of 100 idle connections still answered")
    first, last = points[1], points[-1]
    slope = (last["anon_kb"] - first["anon_kb"]) * 1024 / (steps[-1] - steps[0])
    return {"points": points, "bytes_per_connection": slope}


def still_answers(sock: socket.socket, workload: Workload, port: int) -> bool:
    try:
        sock.settimeout(5)
        sock.sendall(workload.request(f"{HOST}:{port}"))
        seen = b""
        while workload.expect not in seen:
            part = sock.recv(65536)
            if not part:
                return False
            seen += part
    except OSError:
        return False
    return True
