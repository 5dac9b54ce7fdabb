"""The servers under measurement: how each is installed and started.

Peers come from the package registry, at the versions pinned here, into an environment of their own
under build/bench/env/. ppserver comes from a build in this tree. The floor is bare.c.
"""

import functools
import importlib.metadata
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
BUILD = ROOT / "build" / "bench"
BASELINE = "bare"


class SetupError(Exception):
    """A peer cannot be measured here; the message says why."""


@dataclass(frozen=True)
class Target:
    """What a command line is made from."""

    app: str  # module:attribute
    interface: str  # asgi | wsgi | parallel
    port: int
    python: str
    bin: Path
    workers: int = 1
    lifespan: bool = False
    loop: str = "uvloop"  # which has no wheel for builds without a GIL


@dataclass(frozen=True)
class Peer:
    name: str
    command: Callable[[Target], list[str]]
    requires: tuple[str, ...] = ()  # empty: not from the registry
    interfaces: tuple[str, ...] = ("asgi",)
    env: str = ""  # environment it shares with another peer; its own name by default
    default: bool = True
    environ: dict[str, str] = field(default_factory=dict)

    @property
    def env_name(self) -> str:
        return self.env or self.name


def lifespan(target: Target) -> str:
    return "on" if target.lifespan else "off"


def uvicorn(target: Target) -> list[str]:
    return [
        str(target.bin / "uvicorn"),
        target.app,
        "--app-dir",
        str(HERE),
        "--port",
        str(target.port),
        "--loop",
        target.loop,
        "--http",
        "httptools",
        "--ws",
        "none",
        "--lifespan",
        lifespan(target),
        "--no-access-log",
        "--log-level",
        "warning",
        "--timeout-keep-alive",
        "120",
        "--workers",
        str(target.workers),
    ]


def granian(*extra: str) -> Callable[[Target], list[str]]:
    def command(target: Target) -> list[str]:
        # asginl is granian's name for ASGI without lifespan.
        without = "wsgi" if target.interface == "wsgi" else "asginl"
        interface = "asgi" if target.lifespan else without
        line = [
            str(target.bin / "granian"),
            target.app,
            "--working-dir",
            str(HERE),
            "--host",
            "127.0.0.1",
            "--port",
            str(target.port),
            "--interface",
            interface,
            "--workers",
            str(target.workers),
            "--runtime-threads",
            "1",
            "--http",
            "1",
            "--no-ws",
            "--loop",
            target.loop,
            "--backlog",
            "32768",
            "--log-level",
            "warning",
            *extra,
        ]
        return line + (["--blocking-threads", "1"] if target.interface == "wsgi" else [])

    return command


def h2corn(target: Target) -> list[str]:
    return [
        str(target.bin / "h2corn"),
        target.app,
        "--app-dir",
        str(HERE),
        "--bind",
        f"127.0.0.1:{target.port}",
        "--workers",
        str(target.workers),
        "--runtime-threads",
        "1",
        "--loop",
        target.loop,
        "--lifespan",
        lifespan(target),
        "--no-access-log",
    ]


def hypercorn(target: Target) -> list[str]:
    # It has no switch for the lifespan; an application that refuses it is served all the same.
    return [
        str(target.bin / "hypercorn"),
        target.app,
        "--bind",
        f"127.0.0.1:{target.port}",
        "--worker-class",
        target.loop,
        "--workers",
        str(target.workers),
        "--log-level",
        "warning",
        "--keep-alive",
        "120",
        "--backlog",
        "4096",
    ]


def launched(server: str) -> Callable[[Target], list[str]]:
    def command(target: Target) -> list[str]:
        line = [target.python, str(HERE / "launch.py"), server, target.app, str(target.port)]
        return [*line, str(target.workers), lifespan(target)]

    return command


def gunicorn(target: Target) -> list[str]:
    asgi = [
        "--worker-class",
        "asgi",
        "--asgi-loop",
        target.loop,
        "--asgi-lifespan",
        lifespan(target),
    ]
    return [
        str(target.bin / "gunicorn"),
        target.app,
        "--chdir",
        str(HERE),
        "--bind",
        f"127.0.0.1:{target.port}",
        "--workers",
        str(target.workers),
        "--log-level",
        "warning",
        "--no-control-socket",
        "--keep-alive",
        "120",
        "--backlog",
        "4096",
        *(asgi if target.interface == "asgi" else []),
    ]


def ppserver(*extra: str) -> Callable[[Target], list[str]]:
    def command(target: Target) -> list[str]:
        line = [
            target.python,
            "-m",
            "ppserver",
            target.app,
            "--app-dir",
            str(HERE),
            "--bind",
            f"127.0.0.1:{target.port}",
            "--interface",
            target.interface,
            "--lifespan",
            lifespan(target),
            "--cores",
            str(target.workers),
        ]
        if "--access-log" not in extra:
            line.append("--no-access-log")
        if "--loop" not in extra:  # Named, since the default goes by what is installed.
            line += ["--loop", "asyncio"]
        return line + list(extra)

    return command


def bare(binary: str) -> Callable[[Target], list[str]]:
    return lambda target: [str(BUILD / binary), str(target.port), str(target.workers)]


def is_floor(name: str) -> bool:
    """No server, but what one is compared with: bare.c, or a variant of it."""
    return name.partition("-")[0] == BASELINE


def catalogue() -> list[Peer]:
    both = ("asgi", "wsgi")
    own = (*both, "parallel")
    frameworks = (
        *("starlette==1.10.0", "fastapi==0.165.0", "django==5.2.19", "flask==3.1.3"),
        *("numpy", "psycopg[binary,pool]"),  # the TEFB suite's
    )
    uvloop = "uvloop==0.23.0"
    # Later ones have no wheel for 3.13 without a GIL.
    free = sysconfig.get_config_var("Py_GIL_DISABLED") and sys.version_info < (3, 14)
    granian_release = "granian==2.7.9" if free else "granian==2.8.7"
    return [
        Peer(BASELINE, bare("bare"), interfaces=own),
        Peer("bare-uring", bare("bare_uring"), interfaces=own, default=False),
        Peer("ppserver", ppserver(), interfaces=own),
        Peer("ppserver-uvloop", ppserver("--loop", "uvloop")),
        Peer("ppserver-plain", ppserver("--task", "plain"), default=False),
        Peer("ppserver-log", ppserver("--access-log"), interfaces=both, default=False),
        Peer(
            "ppserver-proxied",
            ppserver("--access-log", "--proxy-headers"),
            interfaces=both,
            default=False,
        ),
        *(
            Peer(f"ppserver-{place}", ppserver("--contexts", place), interfaces=own, default=False)
            for place in ("processes", "threads", "interpreters")
        ),
        Peer(
            "uvicorn",
            uvicorn,
            ("uvicorn==0.54.0", "httptools==0.9.0", uvloop, *frameworks),
        ),
        Peer("granian", granian(), (granian_release, uvloop, *frameworks), interfaces=both),
        Peer("granian-rust", granian("--task-impl", "rust"), ("granian",), env="granian"),
        Peer("h2corn", h2corn, ("h2corn==2.0.0", uvloop, *frameworks)),
        Peer("fastpysgi", launched("fastpysgi"), ("fastpysgi==0.6", *frameworks), interfaces=both),
        Peer("bjoern", launched("bjoern"), ("bjoern==3.2.2", *frameworks), interfaces=("wsgi",)),
        Peer("hypercorn", hypercorn, ("hypercorn==0.18.0", uvloop, *frameworks)),
        Peer("gunicorn", gunicorn, ("gunicorn[fast]==26.2.0", uvloop, *frameworks)),
        Peer(
            "gunicorn-wsgi",
            gunicorn,
            ("gunicorn",),
            env="gunicorn",
            interfaces=("wsgi",),
            default=False,
        ),
    ]


@dataclass(frozen=True)
class Interpreter:
    version: tuple[int, int]
    has_gil: bool

    @property
    def tag(self) -> str:
        """3.11, 3.13t"""
        return "{}.{}".format(*self.version) + ("" if self.has_gil else "t")


FACTS = (
    "import sys, sysconfig; print(*sys.version_info[:2],"
    " int(bool(sysconfig.get_config_var('Py_GIL_DISABLED'))))"
)


@functools.cache
def interpreter(python: str) -> Interpreter:
    done = subprocess.run([python, "-c", FACTS], capture_output=True, text=True)
    if done.returncode != 0:
        raise SetupError(f"{python} does not run: {done.stderr.strip()[-400:]}")
    major, minor, free = map(int, done.stdout.split())
    return Interpreter((major, minor), not free)


def environment(peer: Peer, python: str) -> Path:
    return BUILD / "env" / interpreter(python).tag / peer.env_name


def requirements(peer: Peer, python: str) -> list[str]:
    """Without a GIL, only what is known to keep it away."""
    if interpreter(python).has_gil:
        return list(peer.requires)
    return [peer.requires[0], *(one for one in peer.requires if one.startswith("starlette"))]


def prepare(peer: Peer, python: str, ppserver_path: Path, loud: bool = True) -> None:
    """Installs or builds what `peer` needs; quick when it is there already."""
    if peer.name == BASELINE:
        build_bare()
    elif is_floor(peer.name):
        build_c("bare_uring", ["-luring"])  # Debian: liburing-dev
    elif not peer.requires:
        check_ppserver(python, ppserver_path)
    elif peer.env_name == peer.name:
        install(peer, python, loud)


def build_bare() -> None:
    build_c(BASELINE)


def call(*command: str | Path, cwd: Path, log: Path) -> None:
    with log.open("a") as output:
        done = subprocess.run(command, cwd=cwd, stdout=output, stderr=subprocess.STDOUT)
    if done.returncode != 0:
        tail = log.read_text(errors="replace").strip()[-800:]
        raise SetupError(f"{command[0]} failed: {tail}")


def build_release(source: Path, objects: Path, *targets: str, options: Sequence[str] = ()) -> None:
    """Targets of the tree `source`, or all, as a release has them, in the folder `objects`."""
    log = objects.parent / "log"
    log.parent.mkdir(parents=True, exist_ok=True)
    meson = shutil.which("meson") or str(Path(sys.executable).parent / "meson")
    ninja = shutil.which("ninja") or str(Path(sys.executable).parent / "ninja")
    if not (objects / "build.ninja").exists():
        setup = ["setup", str(objects), "-Dbuildtype=release", "-Db_lto=true", *options]
        call(meson, *setup, cwd=source, log=log)
    call(ninja, "-C", objects, *targets, cwd=source, log=log)


def build_c(name: str, more: Sequence[str] = ()) -> Path:
    """Compiles NAME.c of this folder into the build folder, unless it is newer already."""
    source, binary = HERE / f"{name}.c", BUILD / name
    newest = max(path.stat().st_mtime for path in (source, *HERE.glob("*.h")))
    if binary.exists() and binary.stat().st_mtime > newest:
        return binary
    BUILD.mkdir(parents=True, exist_ok=True)
    compiler = os.environ.get("CC", "cc")
    flags = ["-std=c11", "-O2", "-Wall", "-Wextra", "-Werror"]
    # Under another name first: a test that runs at the same time must not find half of it.
    part = BUILD / f"{name}.{os.getpid()}"
    done = subprocess.run(
        [compiler, *flags, "-o", str(part), str(source), *more], capture_output=True, text=True
    )
    if done.returncode != 0:
        raise SetupError(f"{compiler} could not build {name}.c: {done.stderr.strip()}")
    part.replace(binary)
    return binary


def install(peer: Peer, python: str, loud: bool) -> None:
    folder = environment(peer, python)
    stamp = folder / "requires.txt"
    requires = requirements(peer, python)
    wanted = python + "\n" + "\n".join(requires) + "\n"
    if stamp.exists() and stamp.read_text() == wanted:
        return
    if loud:
        print(f"installing {peer.name} into {folder.relative_to(ROOT)}", file=sys.stderr)
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([python, "-m", "venv", str(folder)], check=True)
    done = subprocess.run(
        [
            str(folder / "bin" / "pip"),
            "install",
            "-q",
            "--disable-pip-version-check",
            *requires,
        ],
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        hint = " (it needs libev-dev)" if peer.name == "bjoern" else ""
        raise SetupError(f"pip could not install {peer.name}{hint}: {done.stderr.strip()[-400:]}")
    stamp.write_text(wanted)


PROBE = """
from ppserver import _native
build = _native.BUILD
checks = "with assertions" if build["assertions"] else "without assertions"
print(f"{build['version']}, {build['type']} build {checks}, {_native.simd_level()}")
"""


def check_ppserver(python: str, path: Path) -> str:
    """The build's description, from the extension itself."""
    done = subprocess.run(
        [python, "-c", PROBE],
        capture_output=True,
        text=True,
        env=ppserver_environ(path),
        cwd=BUILD,
    )
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines()
        raise SetupError(f"ppserver does not import from {path}: {lines[-1] if lines else ''}")
    return done.stdout.strip()


def ppserver_environ(path: Path) -> dict[str, str]:
    environ = {key: value for key, value in os.environ.items() if not key.startswith("PPSERVER_")}
    environ["PYTHONPATH"] = str(path)
    return environ


def place_of(app: str) -> str:
    """A workload's application, as a server is given it."""
    return app if ":" in app or app.endswith(".py") else f"bench_apps:{app}"


def alone(path: Path) -> list[str]:
    """What keeps the one context of a checkout in one process, as its peers have it."""
    package = path / "ppserver"
    settings = [*package.glob("config.py"), *package.glob("config/*.py")]
    # Checkouts before this setting know nothing else.
    known = any("supervise" in file.read_text() for file in settings)
    return ["--supervise", "never"] if known else []


def command_line(
    peer: Peer,
    app: str,
    interface: str,
    port: int,
    python: str,
    ppserver_path: Path,
    workers: int = 1,
    lifespan: bool = False,
) -> tuple[list[str], dict[str, str]]:
    """The command of one server process tree and its environment."""
    folder = environment(peer, python)
    own = str(folder / "bin" / "python") if peer.requires else python
    where = place_of(app)
    loop = "uvloop" if interpreter(python).has_gil else "asyncio"
    target = Target(where, interface, port, own, folder / "bin", workers, lifespan, loop)
    environ = ppserver_environ(ppserver_path) if not peer.requires else dict(os.environ)
    if peer.requires:
        environ["PYTHONPATH"] = str(HERE)
    environ["PYTHONHASHSEED"] = "0"
    environ.update(peer.environ)
    command = peer.command(target)
    if command[1:3] == ["-m", "ppserver"] and workers == 1 and "--contexts" not in command:
        command += alone(ppserver_path)
    return command, environ


def versions(peer: Peer, python: str) -> dict[str, str]:
    """The distributions of a peer's environment."""
    if not peer.requires:
        return {}
    folders = [str(p) for p in environment(peer, python).glob("lib/python*/site-packages")]
    return {
        str(dist.metadata["Name"]): dist.version
        for dist in importlib.metadata.distributions(path=folders)
        if dist.metadata["Name"] not in ("pip", "setuptools")
    }
