"""Drives an application in many contexts at once, without sockets: `python inside.py JOB`.

JOB is a JSON object: back end, handler, contexts, seconds, freeze. Each context (a thread, a forked
process, or an interpreter with a GIL of its own) calls the application over and over, as a server
would with a request that is there, and counts. All begin together at a byte from a pipe. What comes
out is the scaling of Python and of the data alone: no load generator, no network, no kernel.
Runs inside the interpreter under measurement; prints a JSON object.
"""

import json
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

Job = dict[str, Any]


def scope_of(path: str) -> dict[str, Any]:
    """What a server gives an ASGI application for a GET."""
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path.encode().decode(),  # each context's own, as a server makes it
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"bench")],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 2),
    }


def drive(handler: str, seconds: float, ready: int, go: int, out: int) -> None:
    """One context's part: says it is ready, waits to be let go, counts, says what it was."""
    import multi_apps

    app = multi_apps.Site()
    template = scope_of(handler)

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        pass

    def call(times: int) -> None:
        for _ in range(times):
            coroutine: Any = app(dict(template), receive, send)
            try:
                coroutine.send(None)
            except StopIteration:
                continue
            raise RuntimeError(f"{handler} waits for something")

    call(3)
    batch = 1
    while True:  # long enough that the clock costs nothing
        began = time.perf_counter()
        call(batch)
        if time.perf_counter() - began > 0.001:
            break
        batch *= 2
    os.write(ready, b".")
    if os.read(go, 1) != b".":
        raise RuntimeError("not let go")
    requests = 0
    cpu, began = time.thread_time_ns(), time.perf_counter_ns()
    end = began + int(seconds * 1e9)
    while (now := time.perf_counter_ns()) < end:
        call(batch)
        requests += batch
    figures = {
        "requests": requests,
        "wall_ns": now - began,
        "cpu_ns": time.thread_time_ns() - cpu,
    }
    os.write(out, json.dumps(figures).encode() + b"\n")


def in_threads(job: Job, part: Callable[[], None]) -> Callable[[], None]:
    def guarded() -> None:
        try:
            part()
        except BaseException as why:
            os._exit(failed(why))

    threads = [threading.Thread(target=guarded) for _ in range(job["contexts"])]
    for thread in threads:
        thread.start()

    def join() -> None:
        for thread in threads:
            thread.join()

    return join


def failed(why: BaseException) -> int:
    print(f"{type(why).__name__}: {why}", file=sys.stderr, flush=True)
    return 1


def in_processes(job: Job, part: Callable[[], None]) -> Callable[[], None]:
    children = []
    for _ in range(job["contexts"]):
        pid = os.fork()
        if pid == 0:
            try:
                part()
            except BaseException as why:
                os._exit(failed(why))
            os._exit(0)
        children.append(pid)

    def join() -> None:
        for child in children:
            if os.waitpid(child, 0)[1] != 0:
                sys.exit("a context failed")

    return join


SCRIPT = "import sys; sys.path[:] = {path!r}; import inside; inside.drive{arguments!r}"


def in_interpreters(job: Job, arguments: tuple[Any, ...]) -> Callable[[], None]:
    try:
        import _interpreters  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        sys.exit("interpreters: this Python has no module to make them with; 3.13 has")
    script = SCRIPT.format(path=sys.path, arguments=arguments)

    def part() -> None:
        number = _interpreters.create()  # never destroyed: the process leaves by os._exit
        problem = _interpreters.exec(number, script)
        if problem is not None:
            raise RuntimeError(problem.formatted)

    return in_threads(job, part)


def freeze_loaded() -> dict[str, Any]:
    try:
        from ppserver import freeze  # type: ignore[attr-defined, unused-ignore]
    except ImportError:
        sys.exit("freeze: this ppserver cannot")
    return {"frozen": str(freeze(*list(sys.modules.values())))}


def main() -> None:
    job: Job = json.loads(sys.argv[1])
    ready_in, ready_out = os.pipe()
    go_in, go_out = os.pipe()
    out_in, out_out = os.pipe()
    arguments = (job["handler"], job["seconds"], ready_out, go_in, out_out)
    result: dict[str, Any] = {}
    if job["backend"] == "interpreters":
        join = in_interpreters(job, arguments)
    else:
        import multi_apps

        assert multi_apps.Site  # loaded once, here
        if job["freeze"]:
            result |= freeze_loaded()
        import gc

        gc.collect()
        gc.freeze()
        start = {"threads": in_threads, "processes": in_processes}[job["backend"]]
        join = start(job, lambda: drive(*arguments))
    ready = 0
    while ready < job["contexts"]:
        os.set_blocking(ready_in, True)
        got = os.read(ready_in, job["contexts"])
        if not got:
            sys.exit("a context failed")
        ready += len(got)
    os.write(go_out, b"." * job["contexts"])
    with os.fdopen(out_in) as stream:
        result["contexts"] = [json.loads(stream.readline()) for _ in range(job["contexts"])]
        join()
        result["gil"] = getattr(sys, "_is_gil_enabled", lambda: True)()
        print(json.dumps(result), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
