"""What workloads need beside a server: databases, an index, a file. Made once, and mostly kept."""

import atexit
import contextlib
import functools
import os
import re
import subprocess
import sys
from collections.abc import Callable

from . import postgres
from .bench_apps import BIG
from .peers import BUILD, ROOT, SetupError

WIKI_PAGES = 100_000
_until_exit = contextlib.ExitStack()
atexit.register(_until_exit.close)


def run(*command: str) -> str:
    """The output of ``python -m``. Raises SetupError with what it complained about."""
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "contrib")))}
    line = [sys.executable, "-m", *command]
    done = subprocess.run(line, capture_output=True, text=True, env=environ, cwd=BUILD)
    if done.returncode != 0:
        raise SetupError(f"{command[0]}: {done.stderr.strip()[-400:]}")
    return done.stdout


@functools.cache
def tefb() -> dict[str, str]:
    """A filled SQLite database, and the driver by the name that TEFB asks for."""
    folder = BUILD / "tefb"
    file = folder / "hello_world"
    if not file.exists():
        run("examples.tefb_db", "sqlite", "--odbc", str(folder), "--file", str(file))
    return {
        "ODBCSYSINI": str(folder),
        "TEFB_CONNECT": f"Driver={{SQL Server}};Server=localhost;Database={file};",
        "TEFB_SQLITE": str(file),
    }


@functools.cache
def tefb_pg() -> dict[str, str]:
    """A PostgreSQL cluster of our own, filled, until this process ends."""
    try:
        folder = _until_exit.enter_context(postgres.running())
    except LookupError as why:
        raise SetupError(str(why)) from None
    made = BUILD / "tefb-pg"
    made.mkdir(exist_ok=True)
    admin = f"Server={folder};Uid=test;"
    said = run("examples.tefb_db", "postgresql", "--odbc", str(made), "--admin", admin)
    exported = dict(re.findall(r"^  export (\w+)='?(.*?)'?$", said, re.MULTILINE))
    dsn = f"postgresql://benchmarkdbuser@/hello_world?host={folder}"
    return {**exported, "TEFB_DSN": dsn}


@functools.cache
def wiki() -> dict[str, str]:
    """A dump of a hundred thousand pages, and its index."""
    dump, index = BUILD / f"wiki-{WIKI_PAGES}.xml", BUILD / f"wiki-{WIKI_PAGES}"
    if not (index / "index.json").exists():
        words = ["--pages", str(WIKI_PAGES), "--seed", "1", "--output", str(dump), "--quiet"]
        run("examples.wiki.make_dump", *words)
        run("examples.wiki.build", str(dump), "--output", str(index), "--quiet")
    return {"WIKI_INDEX": str(index)}


def file() -> dict[str, str]:
    """What bench_apps.wsgi_file sends."""
    path = BUILD / "big"
    path.write_bytes(BIG)
    return {"BENCH_FILE": str(path)}


MAKERS: dict[str, Callable[[], dict[str, str]]] = {
    "": dict,
    "file": file,
    "tefb": tefb,
    "tefb-pg": tefb_pg,
    "wiki": wiki,
}


def environ_of(needs: str) -> dict[str, str]:
    """The variables for a workload that needs something; none for "".

    Raises SetupError if it cannot be had here.
    """
    return MAKERS[needs]()
