"""Build the wheel, install it and what it requires into an environment of its own, and serve.

    python scripts/try-wheel.py FOLDER

The build uses the environment that runs this; the folder is made anew.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

APP = """
import os

async def app(scope, receive, send):
    assert scope["type"] == "http"
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"9")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": os.environ["TRIED"].encode()})
"""
ENV_FILE = 'export TRIED="wheel ${NUMBER}" # by python-dotenv\nUNUSED=1\n'
IMPORTS = "import ctk, parallel, ppserver, ppserver.testing; print(ppserver.__file__)"


def call(*command: object, folder: Path = ROOT) -> str:
    """The output; raises CalledProcessError if the command fails."""
    line = [str(part) for part in command]
    return subprocess.run(line, cwd=folder, check=True, stdout=subprocess.PIPE, text=True).stdout


def serve(command: Path, folder: Path) -> None:
    """A request is answered, and SIGTERM ends the server."""
    line = [str(command), "app:app", "--port", "0", "--lifespan", "off", "--env-file", "settings"]
    environ = {**os.environ, "NUMBER": "one"}
    with subprocess.Popen(
        line, cwd=folder, env=environ, stderr=subprocess.STDOUT, stdout=subprocess.PIPE
    ) as server:
        assert server.stdout is not None
        log = ""
        try:
            while not (found := re.search(r"running on (http://\S+)", log)):
                if not (text := server.stdout.readline().decode()):
                    sys.exit(f"try-wheel: the server ended:\n{log}")
                log += text
            with urllib.request.urlopen(found[1], timeout=60) as answer:
                assert answer.read() == b"wheel one"
            server.send_signal(signal.SIGTERM)
            log += server.stdout.read().decode()
            if server.wait(60) != 0:
                sys.exit(f"try-wheel: exit code {server.returncode}:\n{log}")
        finally:
            server.kill()


def main(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    options = ("--wheel", "--no-isolation", "--skip-dependency-check", "--outdir", folder)
    with (folder / "build.log").open("w") as log:
        done = subprocess.run(
            [sys.executable, "-m", "build", *map(str, options)], cwd=ROOT, stdout=log, stderr=log
        )
    if done.returncode != 0:
        sys.exit((folder / "build.log").read_text() + "try-wheel: the wheel cannot be built")
    (wheel,) = folder.glob("*.whl")
    call(sys.executable, "-m", "venv", folder / "env")
    python = folder / "env" / "bin" / "python"
    constraints = ROOT / "scripts" / "constraints.txt"
    call(python, "-m", "pip", "install", "-q", "--prefer-binary", "-c", constraints, wheel)
    os.environ.pop("PYTHONPATH", None)
    with tempfile.TemporaryDirectory() as name:
        empty = Path(name)
        (empty / "app.py").write_text(APP)
        (empty / "settings").write_text(ENV_FILE)
        found = Path(call(python, "-c", IMPORTS, folder=empty).strip())
        if not found.is_relative_to(folder.resolve()):
            sys.exit(f"try-wheel: what was imported is {found}")
        serve(folder / "env" / "bin" / "ppserver", empty)
    print(f"try-wheel: {wheel.name} serves")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
