"""The servers under measurement: how each is installed and started.

Peers come from the package registry, at the versions pinned here, into an environment of their own
under build/bench/env/. ppserver comes from a build in this tree. The floor is bare.c.
"""

import importlib.metadata
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
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
    interface: str  # asgi | wsgi
    port: int
    python: str
    bin: Path


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


def uvicorn(target: Target) -> list[str]:
    return [
        str(target.bin / "uvicorn"),
        target.app,
        "--app-dir",
        str(HERE),
        "--port",
        str(target.port),
        "--loop",
        "uvloop",
        "--http",
        "httptools",
        "--ws",
        "none",
        "--lifespan",
        "off",
        "--no-access-log",
        "--log-level",
        "warning",
        "--timeout-keep-alive",
        "120",
    ]


def granian(*extra: str) -> Callable[[Target], list[str]]:
    def command(target: Target) -> list[str]:
        # asginl is granian's name for ASGI without lifespan.
        interface = {"asgi": "asginl", "wsgi": "wsgi"}[target.interface]
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
            "1",
            "--runtime-threads",
            "1",
            "--http",
            "1",
            "--no-ws",
            "--loop",
            "uvloop",
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
        "1",
        "--runtime-threads",
        "1",
        "--loop",
        "uvloop",
        "--lifespan",
        "off",
        "--no-access-log",
    ]


def launched(server: str) -> Callable[[Target], list[str]]:
    def command(target: Target) -> list[str]:
        return [target.python, str(HERE / "launch.py"), server, target.app, str(target.port)]

    return command


def gunicorn(target: Target) -> list[str]:
    return [
        str(target.bin / "gunicorn"),
        target.app,
        "--chdir",
        str(HERE),
        "--bind",
        f"127.0.0.1:{target.port}",
        "--workers",
        "1",
        "--log-level",
        "warning",
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
            "--port",
            str(target.port),
            "--interface",
            target.interface,
            "--lifespan",
            "off",
            "--cores",
            "1",
        ]
        if "--access-log" not in extra:
            line.append("--no-access-log")
        return line + list(extra)

    return command


def bare(target: Target) -> list[str]:
    return [str(BUILD / "bare"), str(target.port)]


def catalogue() -> list[Peer]:
    both = ("asgi", "wsgi")
    starlette = "starlette==1.10.0"
    uvloop = "uvloop==0.23.0"
    return [
        Peer(BASELINE, bare, interfaces=both),
        Peer("ppserver", ppserver(), interfaces=both),
        Peer("ppserver-uvloop", ppserver("--loop", "uvloop")),
        Peer("ppserver-plain", ppserver("--task", "plain"), default=False),
        Peer("ppserver-log", ppserver("--access-log"), interfaces=both, default=False),
        Peer(
            "uvicorn",
            uvicorn,
            ("uvicorn==0.54.0", "httptools==0.9.0", uvloop, starlette),
        ),
        Peer("granian", granian(), ("granian==2.8.7", uvloop, starlette), interfaces=both),
        Peer("granian-rust", granian("--task-impl", "rust"), ("granian",), env="granian"),
        Peer("h2corn", h2corn, ("h2corn==2.0.0", uvloop, starlette)),
        Peer("fastpysgi", launched("fastpysgi"), ("fastpysgi==0.6", starlette), interfaces=both),
        Peer("bjoern", launched("bjoern"), ("bjoern==3.2.2",), interfaces=("wsgi",)),
        Peer("gunicorn", gunicorn, ("gunicorn",), interfaces=("wsgi",), default=False),
    ]


def environment(peer: Peer) -> Path:
    return BUILD / "env" / peer.env_name


def prepare(peer: Peer, python: str, ppserver_path: Path, loud: bool = True) -> None:
    """Installs or builds what `peer` needs; quick when it is there already."""
    if peer.name == BASELINE:
        build_bare()
    elif not peer.requires:
        check_ppserver(python, ppserver_path)
    elif peer.env_name == peer.name:
        install(peer, python, loud)


def build_bare() -> None:
    source, binary = HERE / "bare.c", BUILD / "bare"
    if binary.exists() and binary.stat().st_mtime > source.stat().st_mtime:
        return
    BUILD.mkdir(parents=True, exist_ok=True)
    compiler = os.environ.get("CC", "cc")
    flags = ["-std=c11", "-O2", "-Wall", "-Wextra", "-Werror"]
    done = subprocess.run(
        [compiler, *flags, "-o", str(binary), str(source)], capture_output=True, text=True
    )
    if done.returncode != 0:
        raise SetupError(f"{compiler} could not build bare.c: {done.stderr.strip()}")


def install(peer: Peer, python: str, loud: bool) -> None:
    folder = environment(peer)
    stamp = folder / "requires.txt"
    wanted = python + "\n" + "\n".join(peer.requires) + "\n"
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
            *peer.requires,
        ],
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        hint = " (it needs libev-dev)" if peer.name == "bjoern" else ""
        raise SetupError(f"pip could not install {peer.name}{hint}: {done.stderr.strip()[-400:]}")
    stamp.write_text(wanted)


PROBE = "from ppserver import _native; print(_native.BUILD, _native.simd_level())"


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


def command_line(
    peer: Peer, app: str, interface: str, port: int, python: str, ppserver_path: Path
) -> tuple[list[str], dict[str, str]]:
    """The command of one server process tree and its environment."""
    folder = environment(peer)
    own = str(folder / "bin" / "python") if peer.requires else python
    target = Target(f"bench_apps:{app}", interface, port, own, folder / "bin")
    environ = ppserver_environ(ppserver_path) if not peer.requires else dict(os.environ)
    if peer.requires:
        environ["PYTHONPATH"] = str(HERE)
    environ["PYTHONHASHSEED"] = "0"
    environ.update(peer.environ)
    return peer.command(target), environ


def versions(peer: Peer) -> dict[str, str]:
    """The distributions of a peer's environment."""
    if not peer.requires:
        return {}
    folders = [str(p) for p in environment(peer).glob("lib/python*/site-packages")]
    return {
        str(dist.metadata["Name"]): dist.version
        for dist in importlib.metadata.distributions(path=folders)
        if dist.metadata["Name"] not in ("pip", "setuptools")
    }
