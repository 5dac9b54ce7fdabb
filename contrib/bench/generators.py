"""The load generators: wrk for as much as a server can take, storm.c for a rate and much else."""

import json
import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .peers import BUILD, build_c
from .workloads import Workload

HOST = "127.0.0.1"


class MeasureError(Exception):
    """A server did not start, or does not answer as it must."""


@dataclass(frozen=True)
class Load:
    """What a generator saw."""

    requests: int
    seconds: float
    response_bytes: float  # head and body; 0 where nobody counts
    errors: int
    p50_us: float
    p99_us: float
    p999_us: float


def pinned(cores: str) -> list[str]:
    return ["taskset", "-c", cores] if cores else []


# -- wrk -------------------------------------------------------------------------------------------

DONE_LUA = """
function done(summary, latency, requests)
  io.write(string.format(
    '@@{"requests":%d,"us":%d,"bytes":%d,"connect":%d,"read":%d,"write":%d,"status":%d,' ..
    '"timeout":%d,"p50":%d,"p99":%d,"p999":%d}\\n',
    summary.requests, summary.duration, summary.bytes, summary.errors.connect,
    summary.errors.read, summary.errors.write, summary.errors.status, summary.errors.timeout,
    latency:percentile(50), latency:percentile(99), latency:percentile(99.9)))
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


def wrk(workload: Workload, port: int, seconds: float, cores: str) -> Load:
    """All connections ask again as soon as they are answered; a thread for each core."""
    whole = max(1, round(seconds))
    threads = min(len(cores.split(",")), workload.connections)
    script = wrk_script(workload, port)
    try:
        done = subprocess.run(
            [
                *pinned(cores),
                "wrk",
                f"-t{threads}",
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
    finally:
        script.unlink()
    for line in done.stdout.splitlines():
        if line.startswith("@@"):
            found: dict[str, int] = json.loads(line[2:])
            break
    else:
        raise MeasureError(f"wrk said: {(done.stdout + done.stderr).strip()[-400:]}")
    if found["requests"] == 0:
        raise MeasureError("no request was answered")
    return Load(
        requests=found["requests"],
        seconds=found["us"] / 1e6,
        response_bytes=found["bytes"] / found["requests"],
        errors=sum(found[kind] for kind in ("connect", "read", "write", "status", "timeout")),
        p50_us=found["p50"],
        p99_us=found["p99"],
        p999_us=found["p999"],
    )


# -- storm -----------------------------------------------------------------------------------------


def compile_c(name: str) -> Path:
    """Compiles contrib/bench/NAME.c into build/bench; quick when it is there already."""
    return build_c(name, ["-D_GNU_SOURCE", "-pthread"])


def storm(
    port: int, path: str, cores: str = "", at: Callable[[], Any] | None = None, **options: Any
) -> tuple[dict[str, Any], Any, Any]:
    """Runs storm.c: its figures, and what `at` gave after the warm-up and at the end."""
    line = [*pinned(cores), str(compile_c("storm")), str(port), path]
    for name, value in options.items():
        line += [f"--{name}"] if value is True else [f"--{name}", str(value)]
    begin = end = None
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as load:
        assert load.stdout is not None
        assert load.stderr is not None
        if load.stdout.readline() == "begin\n" and at is not None:
            begin = at()
        text = load.stdout.readline()
        if at is not None:
            end = at()
        problem = load.stderr.read()
    if load.returncode != 0 or not text:
        raise MeasureError(f"the load generator ended with {load.returncode}: {problem.strip()}")
    figures: dict[str, Any] = json.loads(text)
    if figures["requests"] == 0 and not options.get("hold"):
        raise MeasureError("no request was answered")
    return figures, begin, end


def errors_of(figures: dict[str, Any]) -> int:
    kinds = ("connect_errors", "read_errors", "status_errors")
    return int(sum(figures[kind] for kind in kinds))


def paced(
    workload: Workload,
    port: int,
    seconds: float,
    cores: str,
    rate: float,
    at: Callable[[], tuple[float, ...]],
) -> tuple[Load, tuple[float, ...]]:
    """Requests fall due at fixed times; latency counts from then. With `at` of the start."""
    figures, begin, _ = storm(
        port,
        workload.path,
        cores,
        at,
        connections=workload.connections,
        threads=1,
        seconds=seconds,
        warmup=1,  # opening the connections is not part of the question
        rate=round(rate),
    )
    load = Load(
        requests=figures["requests"],
        seconds=figures["seconds"],
        response_bytes=0,
        errors=errors_of(figures) + figures["unfinished"],
        p50_us=figures["p50_us"],
        p99_us=figures["p99_us"],
        p999_us=figures["p999_us"],
    )
    return load, begin
