"""What the benchmarks of many contexts share: sides, environments, servers, load, and the report.

A *side* is one way to run contexts: an interpreter, a back end, with freeze or without. Sides take
turns within a round (A B A B ...). A side that a server refuses is reported with what it said.
"""

import argparse
import datetime
import json
import re
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import generators, peers, report, run
from .generators import HOST, MeasureError
from .measure import Placement, running
from .peers import BUILD, HERE, ROOT, Peer, SetupError, Target

BACKENDS = ("processes", "threads", "interpreters")
LIBRARIES = ("starlette==1.10.0", "django>=5.2", "numpy>=2", "datrie==0.8.3", "h11>=0.14")


# -- interpreters ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Python:
    """An interpreter with the libraries of the benchmarks."""

    path: str  # of the environment's own interpreter
    tag: str  # 3.11, 3.13t
    has_gil: bool
    version: tuple[int, int]
    flags: str  # what this ppserver's command line knows: its --help
    build: str
    lacks: tuple[str, ...] = ()

    def knows(self, flag: str) -> bool:
        return re.search(rf"(?<![\w-]){re.escape(flag)}(?![\w-])", self.flags) is not None


def text_of(*command: str, **more: Any) -> str:
    done = subprocess.run(command, capture_output=True, text=True, **more)
    if done.returncode != 0:
        tail = (done.stderr or done.stdout).strip()[-400:]
        raise SetupError(f"{' '.join(command[:4])}: {tail}")
    return done.stdout


def prepare_python(path: str, as_is: bool = False) -> Python:
    """An interpreter with what the benchmarks need, in build/bench/env/parallel-TAG.

    `as_is` installs nothing: what the interpreter has is what can be measured.
    """
    interpreter = peers.interpreter(path)
    own = path if as_is else str(install_libraries(path, interpreter.tag))
    probe = "import importlib.util, sys; print([importlib.util.find_spec(n) and n for n in {}])"
    found = text_of(own, "-c", probe.format([name_of(library) for library in LIBRARIES]))
    lacks = tuple(n for n in map(name_of, LIBRARIES) if repr(n) not in found)
    build = peers.check_ppserver(own, ROOT)
    flags = text_of(own, "-m", "ppserver", "--help", env=peers.ppserver_environ(ROOT))
    has_gil, version = interpreter.has_gil, interpreter.version
    return Python(own, interpreter.tag, has_gil, version, flags, build, lacks)


def name_of(requirement: str) -> str:
    return re.split(r"[=<>]", requirement)[0]


def install_libraries(path: str, tag: str) -> Path:
    """The environment's interpreter; quick when it is there already."""
    folder = BUILD / "env" / f"parallel-{tag}"
    own = folder / "bin" / "python"
    stamp = folder / "requires.txt"
    wish = path + "\n" + "\n".join(LIBRARIES) + "\n"
    if stamp.exists() and stamp.read_text() == wish:
        return own
    print(f"preparing {folder.relative_to(ROOT)}", file=sys.stderr)
    text_of(path, "-m", "venv", "--clear", "--without-pip", str(folder))
    pip = [sys.executable, "-m", "pip", "--python", str(own), "install", "-q"]
    for library in LIBRARIES:  # one by one: what cannot be had leaves the others alone
        try:
            text_of(*pip, "--disable-pip-version-check", "--prefer-binary", library)
        except SetupError as why:
            print(f"without {library} on {tag}: {why}", file=sys.stderr)
    stamp.write_text(wish)
    return own


# -- sides -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Side:
    """One way to run contexts."""

    python: Python
    backend: str
    freeze: bool | None = None  # None: as the server has it by itself
    label: str = ""
    extra: tuple[str, ...] = ()
    environ: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        frozen = {None: "", True: ", freeze", False: ", no freeze"}[self.freeze]
        return f"{self.python.tag} {self.backend}{frozen}" + (f" {self.label}" * bool(self.label))

    @property
    def slug(self) -> str:
        return re.sub(r"[^\w.]+", "-", self.name)

    def command(self, target: Target, cores: int, lifespan: bool) -> list[str]:
        freeze = {None: [], True: ["--freeze"], False: ["--no-freeze"]}[self.freeze]
        line = [self.python.path, "-m", "ppserver", target.app, "--app-dir", str(HERE)]
        line += ["--port", str(target.port), "--interface", "asgi", "--no-access-log"]
        line += ["--lifespan", "on" if lifespan else "off", "--contexts", self.backend]
        return [*line, "--loop", "asyncio", "--cores", str(cores), *freeze, *self.extra]

    def variables(self) -> dict[str, str]:
        # Modules that ask for a GIL (datrie does) get none; without a GIL is what is measured.
        free = {} if self.python.has_gil or self.backend == "processes" else {"PYTHON_GIL": "0"}
        return free | self.environ


def sides(pythons: list[Python], wanted: list[str], freeze: bool = True) -> list[Side]:
    """Every side that makes sense; with and without freeze where the server can."""
    found = []
    for python in pythons:
        for backend in wanted:
            if backend == "interpreters":
                if python.has_gil and python.version >= (3, 13):
                    found.append(Side(python, backend))
                continue
            both = (True, False) if freeze and python.knows("--no-freeze") else (None,)
            found += [Side(python, backend, choice) for choice in both]
    return found


# -- data ------------------------------------------------------------------------------------------


def data_folder() -> Path:
    return BUILD / "data"


def make_data(python: Python, titles: int) -> None:
    """The files that `data.py` makes, kept; one interpreter makes them for all."""
    print(f"making data of {titles:,} titles, unless it is there", file=sys.stderr)
    text_of(python.path, str(HERE / "data.py"), str(data_folder()), str(titles), cwd=HERE)


def app_environ(needs: str, titles: int, load: str = "import") -> dict[str, str]:
    return {
        "PPBENCH_NEEDS": needs,
        "PPBENCH_TITLES": str(titles),
        "PPBENCH_LOAD": load,
        "PPBENCH_DATA": str(data_folder()),
        # NumPy's own threads would spin on the cores for a while, in each process anew.
        "OPENBLAS_NUM_THREADS": "1",
    }


# -- servers ---------------------------------------------------------------------------------------


@contextmanager
def serving(
    side: Side,
    count: int,
    environ: dict[str, str],
    app: str = "multi_apps:Site",
    cores: str = "",
    lifespan: bool = False,
) -> Iterator[tuple[int, int]]:
    """A server with `count` contexts, all of them answering: yields (pid, port)."""
    peer = Peer(
        side.slug,
        lambda target: side.command(target, count, lifespan),
        environ=side.variables() | environ,
    )
    factory = ("--factory",) if app.endswith(":Site") else ()
    place = Placement(0, 1, side.python.path, ROOT)
    with running(peer, app, "asgi", place, factory, pinned=False, cores=cores) as (pid, port):
        if app.startswith("multi_apps:"):
            wait_for_contexts(port, count)
            check_gil(side, port)
        yield pid, port


def ask(port: int, path: str, sock: socket.socket | None = None) -> tuple[socket.socket, bytes]:
    """One answer of 24 bytes, and the connection it came by, still open."""
    sock = sock or socket.create_connection((HOST, port), timeout=60)
    try:
        sock.sendall(f"GET {path} HTTP/1.1\r\nHost: bench\r\n\r\n".encode())
        seen = b""
        while b"\r\n\r\n" not in seen or len(seen.partition(b"\r\n\r\n")[2]) < 24:
            part = sock.recv(65536)
            if not part:
                raise MeasureError(f"{path}: the connection was closed instead of an answer")
            seen += part
    except BaseException:
        sock.close()
        raise
    if not seen.startswith(b"HTTP/1.1 200 "):
        sock.close()
        raise MeasureError(f"{path}: {seen[:40]!r}")
    return sock, seen.partition(b"\r\n\r\n")[2]


def connect_to_each(port: int, count: int, path: str = "/work") -> dict[str, socket.socket]:
    """A connection to each context, by name.

    All connections stay open meanwhile: a server that picks the least loaded context would give
    the same one to each of a row of short connections.
    """
    by_name: dict[str, socket.socket] = {}
    spare: list[socket.socket] = []
    deadline = time.monotonic() + 120
    try:
        while len(by_name) < count:
            if time.monotonic() > deadline:
                raise MeasureError(f"{len(by_name)} of {count} contexts answered within 120 s")
            if len(spare) >= 64 * count:
                while spare:
                    spare.pop().close()
            sock, body = ask(port, path)
            if by_name.setdefault(body.decode().strip(), sock) is not sock:
                spare.append(sock)
    except BaseException:
        spare += by_name.values()
        raise
    finally:
        for sock in spare:
            sock.close()
    return by_name


def wait_for_contexts(port: int, count: int) -> list[str]:
    """The names of all contexts, once every one has answered."""
    by_name = connect_to_each(port, count)
    for sock in by_name.values():
        sock.close()
    return list(by_name)


def check_gil(side: Side, port: int) -> None:
    """Figures of a free-threaded build that runs with its GIL would be of something else."""
    sock, body = ask(port, "/facts")
    sock.close()
    if side.backend == "threads" and not side.python.has_gil and json.loads(body)["gil"]:
        raise MeasureError("a module has switched the GIL on")


# -- load ------------------------------------------------------------------------------------------


def busy_ns(name: str) -> int:
    """Processor time of the thread that a context's name tells."""
    pid, _, thread = name.partition(".")
    return int(Path(f"/proc/{pid}/task/{thread}/schedstat").read_text().split()[0])


def uneven(values: Sequence[float], count: int) -> float:
    """The greatest over the mean of all `count` contexts; 1 is even, `count` is all on one."""
    return max(values) * count / sum(values) if sum(values) else float(count)


FAR_NS = 100


def apart_ns(cores: str = "") -> float:
    """How long a cache line takes from one core to the other, now. On a virtual machine the two
    may share a cache at one time and none at another, as the hypervisor likes."""
    line = generators.pinned(cores)
    found = json.loads(text_of(*line, str(generators.compile_c("cacheline")), "1", "5"))
    return float(found["pass_ns"])


# -- command line and report -----------------------------------------------------------------------


def parser(name: str, description: str | None) -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog=f"python -m contrib.bench {name}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument(
        "--python",
        action="append",
        metavar="PATH",
        help="an interpreter to measure with; may be given several times (default: this one)."
        " `make PYTHON=PATH release` builds for it",
    )
    made.add_argument(
        "--as-is", action="store_true", help="install nothing: measure with what is there"
    )
    made.add_argument("--rounds", type=int, default=5)
    made.add_argument("--quick", action="store_true", help="a smoke test: one short round")
    made.add_argument("--json", type=Path, help="where the raw figures go as well")
    made.add_argument("--render", type=Path, help="only print the tables of a former run")
    return made


def pythons(args: argparse.Namespace) -> list[Python]:
    BUILD.mkdir(parents=True, exist_ok=True)
    ready = []
    for path in args.python or [sys.executable]:
        try:
            ready.append(prepare_python(path, args.as_is))
        except (SetupError, OSError) as why:
            print(f"without {path}: {why}", file=sys.stderr)
    if not ready:
        sys.exit("no interpreter to measure with")
    return ready


def new_run(tool: str, args: argparse.Namespace, ready: list[Python]) -> dict[str, Any]:
    now = datetime.datetime.now(datetime.UTC)
    return {
        "tool": tool,
        "date": f"{now:%Y-%m-%d %H:%M} UTC",
        "commit": run.commit(),
        "machine": run.machine(),
        "pythons": {python.tag: python.build for python in ready},
        "rounds": args.rounds,
        "refused": {},
    }


def save(figures: dict[str, Any], args: argparse.Namespace) -> None:
    results = BUILD / "results"
    results.mkdir(parents=True, exist_ok=True)
    stamp = re.sub(r"\D", "", figures["date"])
    targets = [results / f"{figures['tool']}-{stamp}.json"]
    targets += [args.json] if args.json else []
    for target in targets:
        target.write_text(json.dumps(figures, indent=1) + "\n")


def header(figures: dict[str, Any]) -> str:
    machine = figures["machine"]
    lines = [
        f"- {figures['tool']}: {figures['date']}, commit {figures['commit']}, "
        f"{figures['rounds']} rounds, sides interleaved",
        f"- {machine['cpu']}, {machine['cores']} cores, {machine['system']}; load average at the "
        f"start {machine['load']:.2f}; {machine['compiler']}",
    ]
    lines += [f"- Python {tag}: {build}" for tag, build in figures["pythons"].items()]
    reasons: dict[str, list[str]] = {}
    for name, why in figures["refused"].items():
        reasons.setdefault(why, []).append(name)
    lines += [f"- refused, {'; '.join(names)}: {why}" for why, names in reasons.items()]
    return "\n".join(lines)


def middle(values: list[float], digits: int = 2) -> str:
    """Median and spread."""
    if not values:
        return ""
    low, high = min(values), max(values)
    text = f"{statistics.median(values):.{digits}f}"
    return text if len(values) == 1 else f"{text} ({low:.{digits}f}..{high:.{digits}f})"


def refuse(figures: dict[str, Any], name: str, why: BaseException) -> None:
    """Notes why a side is not in the table, once."""
    text = " ".join(str(why).split())[-300:] or type(why).__name__
    if figures["refused"].setdefault(name, text) == text:
        print(f"{name}: {text}", file=sys.stderr)


table = report.table


def keep(figures: dict[str, Any], round_: int, name: str, sample: dict[str, Any]) -> None:
    """A side's memory with its data, into the figures and onto stderr."""
    figures["sides"].setdefault(name, []).append(sample)
    print(
        f"round {round_}, {name}: data {sample['data_mb']:.1f} MB, one more "
        f"context {sample['extra_mb']:.1f} MB, {sample['of_data']:.1%} of the data",
        file=sys.stderr,
    )
