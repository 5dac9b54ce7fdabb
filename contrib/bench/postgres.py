"""A PostgreSQL cluster for as long as it is needed."""

from __future__ import annotations

import contextlib
import os
import pathlib
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator


def find_postgres() -> pathlib.Path | None:
    """The folder of initdb and pg_ctl; Debian keeps one per version."""
    found = sorted(
        pathlib.Path("/usr/lib/postgresql").glob("*/bin/initdb"),
        key=lambda path: int(path.parts[-3]),
    )
    if found:
        return found[-1].parent
    on_path = shutil.which("initdb")
    return pathlib.Path(on_path).resolve().parent if on_path else None


@contextlib.contextmanager
def running() -> Iterator[str]:
    """The folder in which a fresh cluster has its socket; its administrator is called test.

    Raises LookupError where PostgreSQL is not installed, and RuntimeError with what its programs
    complain about.
    """
    programs = find_postgres()
    if programs is None:
        raise LookupError("PostgreSQL is not installed (apt-get install postgresql)")
    # Its path has to be short enough for a socket, and open to another user.
    directory = pathlib.Path(tempfile.mkdtemp(prefix="pg"))
    user: dict[str, object] = {}
    if os.geteuid() == 0:  # the server refuses to run as root
        entry = pwd.getpwnam("nobody")
        for name in ("postgres", "nobody"):
            try:
                entry = pwd.getpwnam(name)
                break
            except KeyError:
                continue
        os.chown(directory, entry.pw_uid, entry.pw_gid)
        user = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}

    def run(program: str, *arguments: str) -> None:
        done = subprocess.run(
            [programs / program, *arguments],
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=(log := (directory / "output").open("a+")),
            stderr=subprocess.STDOUT,
            env={"PATH": os.environ["PATH"], "LC_ALL": "C", "TZ": "UTC"},
            **user,
        )
        log.seek(0)
        text = log.read()
        log.close()
        if done.returncode != 0:
            raise RuntimeError(f"{program}: {text}")

    data = str(directory / "data")
    options = f"-c listen_addresses= -c unix_socket_directories={directory} -c fsync=off"
    try:
        run("initdb", "-D", data, "-U", "test", "-A", "trust", "-E", "UTF8", "--no-sync")
        run(
            "pg_ctl", "-D", data, "-w", "-t", "30", "-l", f"{directory}/log", "-o", options, "start"
        )
        try:
            yield str(directory)
        finally:
            run("pg_ctl", "-D", data, "-w", "-m", "immediate", "stop")
    finally:
        shutil.rmtree(directory, ignore_errors=True)
