"""The code blocks of the README and the documentation do what the pages say.

Every page is run from top to bottom in a folder of its own:

- a ``python`` or ``toml`` block whose first line is ``# file: NAME`` is written to that file;
- any other ``python`` block is run as a program, and has to end well;
- in a ``console`` block ``$ ppserver ...`` starts a server, on a free port, which has to come up
  and, at the end of the block, end well; the lines below ``$ curl URL`` are what that server has
  to answer; of ``./dev``, ``make`` and the like only the targets are checked.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import re
import shlex
import signal
import subprocess
import sys
import tomllib
import urllib.parse
import urllib.request
from collections.abc import Iterator

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"))
    if "_generated" not in path.parts
)
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
RUNNING = re.compile(rb"ppserver running on (http://\S+)")
HELLO = """
async def app(scope, receive, send):
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})
"""


def blocks(page: str) -> list[tuple[str, str]]:
    return BLOCK.findall((ROOT / page).read_text(encoding="utf-8"))


def environment() -> dict[str, str]:
    variables = {key: value for key, value in os.environ.items() if not key.startswith("PPSERVER_")}
    return variables | {"PYTHONWARNINGS": "error"}


@contextlib.contextmanager
def server(arguments: list[str], folder: pathlib.Path) -> Iterator[str]:
    """The command of the page, but on a free port; gives its address."""
    command = [sys.executable, "-m", "ppserver", *arguments]
    if "--bind" in command:
        command[command.index("--bind") + 1] = "127.0.0.1:0"
    elif "--port" in command:
        command[command.index("--port") + 1] = "0"
    else:
        command += ["--port", "0"]
    process = subprocess.Popen(
        command, cwd=folder, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert process.stdout is not None
    seen = b""
    try:
        for line in process.stdout:
            seen += line
            match = RUNNING.search(line)
            if match:
                break
        else:
            pytest.fail(f"{shlex.join(arguments)} did not start:\n{seen.decode()}")
        yield match[1].decode()
        process.send_signal(signal.SIGTERM)
        seen += process.communicate(timeout=60)[0]
        assert process.returncode == 0, seen.decode()
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def fetch(url: str, base: str) -> str:
    target = urllib.parse.urlsplit(url)._replace(scheme="", netloc="").geturl()
    with urllib.request.urlopen(base + target, timeout=60) as answer:
        return answer.read().decode()


def commands(block: str) -> Iterator[tuple[list[str], str]]:
    """Each command of a console block, and what is printed below it."""
    for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
        command, _, output = part.partition("\n")
        yield shlex.split(command), output


def run_console(block: str, folder: pathlib.Path) -> None:
    with contextlib.ExitStack() as stack:
        base = ""
        for command, output in commands(block):
            program, *arguments = command
            if program == "ppserver" and "--check-config" in arguments:
                done = subprocess.run(
                    [sys.executable, "-m", "ppserver", *arguments],
                    cwd=folder,
                    env=environment(),
                    check=False,
                )
                assert done.returncode == 0
            elif program == "ppserver":
                base = stack.enter_context(server(arguments, folder))
            elif program == "curl":
                assert fetch(arguments[-1], base) == output
            elif program in {"make", "./dev"}:
                known = (ROOT / "Makefile").read_text() + (ROOT / "dev").read_text()
                for target in arguments:
                    assert re.search(rf"^ *{target}[ :)]", known, re.MULTILINE), target
            else:
                assert program in {"python3", "git", "wrk"}, program


def uses_missing(page: str) -> str | None:
    text = (ROOT / page).read_text(encoding="utf-8")
    for module in set(
        re.findall(r"^(?:from|import) (starlette|flask|fastapi|django)\b", text, re.M)
    ):
        try:
            __import__(module)
        except ImportError:
            return str(module)
    return None


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)])
def test_code_blocks(page: str, tmp_path: pathlib.Path) -> None:
    missing = uses_missing(page)
    if missing:
        pytest.skip(f"{missing} is not installed")
    (tmp_path / "myapp.py").write_text(HELLO)
    for language, text in blocks(page):
        named = re.match(r"# file: ([\w.-]+)\n", text)
        if named:
            (tmp_path / named[1]).write_text(text)
        if language == "toml":
            tomllib.loads(text)
        elif language == "python" and named:
            compile(text, named[1], "exec", dont_inherit=True)
        elif language == "python":
            subprocess.run(
                [sys.executable, "-c", text],
                cwd=tmp_path,
                env=environment(),
                check=True,
                timeout=60,
            )
        elif language == "console":
            run_console(text, tmp_path)


@pytest.mark.parametrize("page", PAGES)
def test_links(page: str) -> None:
    """What a page links to inside the repository is there."""
    for target in LINK.findall((ROOT / page).read_text(encoding="utf-8")):
        if not re.match(r"\w+:", target):
            assert ((ROOT / page).parent / target).exists(), target


def test_targets_of_the_makefile_are_described() -> None:
    """`make help` lists what CONTRIBUTING names."""
    described = set(re.findall(r"^([a-z-]+):.* ## ", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for named in re.findall(r"`make ([a-z-]+)", (ROOT / "CONTRIBUTING.md").read_text()):
        assert named in described
