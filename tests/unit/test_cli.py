"""The command line as far as it goes without serving anything."""

from __future__ import annotations

import os
import pathlib
import re
import shutil
import subprocess
import sys
import tomllib

import pytest

import ppserver
from ppserver import cli
from ppserver.config import table


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    for option in table().values():
        monkeypatch.delenv(option.env, raising=False)
    monkeypatch.delenv("PPSERVER_CONFIG", raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("argv", "error", "hint"),
    [
        ([], "no application given", "ppserver main:app"),
        (["m:app", "--prot", "1"], "unknown argument '--prot'", "did you mean --port?"),
        (["m:app", "--keep-alive", "5"], "unknown argument", "it is --timeout-keep-alive here"),
        (["m:app", "--ssl-keyfile=k"], "unknown argument '--ssl-keyfile=k'", "TLS is not there"),
        (["m:app", "--reload"], "unknown argument '--reload'", "SIGHUP reloads"),
        (["m:app", "--prot=1"], "unknown argument '--prot=1'", "did you mean --port?"),
        (["m:app", "--limit-concurency", "1"], "--limit-concurency", "--limit-concurrency?"),
        (["m:app", "other"], "unknown argument 'other'", "--help"),
        (["m:app", "--port"], "--port: expected one argument", "--help"),
        (["m:app", "--port", "http"], "error: --port: 'http' is not a whole number", ""),
        (["m:app", "--port", "70000"], "error: --port: 70000 is too large (at most 65535)", ""),
        (["m:app", "--workers", "some"], "error: --cores: 'some' is neither 'all' nor", ""),
        (["m:app", "--user", "nobody-of-this-name", "--check-config"], "error: --user: there", ""),
        (["m:app", "--loop", "uvlop"], "loop: 'uvlop' is not one of", "did you mean uvloop?"),
        (["m:app", "--cores", "some"], "cores: 'some' is neither 'all' nor a number", ""),
        (["m:app", "-b", "nonsense", "--check-config"], "'nonsense' is not an address", ""),
        (
            ["m:app", "--check-config", *(f"-b127.0.0.1:{port}" for port in range(9000, 9065))],
            "bind: more than 64 sockets",
            "stands for many",
        ),
        (["m:app", "-c", "/nowhere.toml"], "cannot read configuration file", ""),
        (["m:app", "--env-file", "/nowhere"], "env_file: cannot read", ""),
        (["a:b:c", "--check-config"], "not of the form module:attribute", "for example"),
        (["m:app", "--header", "nonsense"], "not of the form 'Name: value'", ""),
    ],
)
def test_wrong_use(
    argv: list[str], error: str, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(argv) == 2
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert lines[0].startswith("ppserver: error: ")
    assert error in lines[0]
    assert len(lines) == (2 if hint else len(lines))
    assert hint in err


def test_help_has_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["--help"])
    assert caught.value.code == 0
    out = capsys.readouterr().out
    for option in table().values():
        assert option.name == "app" or option.flag in out
    assert max(len(line) for line in out.splitlines()) <= 110


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith(f"ppserver {ppserver.__version__} (CPython 3.")


def test_order_of_sources(
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "c.toml").write_text("host = 'file'\nport = 1\nbacklog = 1\nthreads = 1\n")
    (tmp_path / "env").write_text("PPSERVER_PORT=3\nPPSERVER_BACKLOG=3\n")
    monkeypatch.setenv("PPSERVER_PORT", "2")
    monkeypatch.setenv("PPSERVER_HOST", "environment")
    argv = ["m:app", "-c", "c.toml", "--env-file", "env", "--host", "flag", "--print-config"]
    assert cli.main(argv) == 0
    out = capsys.readouterr().out
    assert 'host = "flag"  # flag' in out
    assert "port = 2  # environment" in out
    assert "backlog = 3  # environment" in out
    assert "threads = 1  # file" in out
    assert "cores = 1\n" in out


def test_printed_configuration_is_one_that_can_be_read(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["m:app", "--umask", "027", "--no-access-log", "--header", 'A: "b"', "--cores", "all"]
    assert cli.main([*argv, "--print-config"]) == 0
    first = capsys.readouterr().out
    assert tomllib.loads(first)["umask"] == 0o027
    (tmp_path / "c.toml").write_text(first)
    assert cli.main(["-c", "c.toml", "--print-config"]) == 0
    second = capsys.readouterr().out
    assert re.sub("  # .*", "", second) == re.sub("  # .*", "", first)


def test_configuration_file_from_the_environment(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "c.toml").write_text("port = 77\n")
    monkeypatch.setenv("PPSERVER_CONFIG", "c.toml")
    assert cli.main(["--print-config"]) == 0
    assert "port = 77  # file" in capsys.readouterr().out


def test_lists(capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["-b", "a:1", "--bind", "b:2,c:3", "--header", "A: 1, 2", "--print-config"]
    assert cli.main(argv) == 0
    out = capsys.readouterr().out
    assert 'bind = ["a:1", "b:2", "c:3"]' in out
    assert 'header = ["A: 1, 2"]' in out


def test_unknown_environment_variable(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PPSERVER_WORKRS", "2")
    assert cli.main(["m:app"]) == 2
    assert "PPSERVER_WORKRS" in capsys.readouterr().err


def test_public_names() -> None:
    assert ppserver.Server.__module__ == "ppserver.context.server"
    with pytest.raises(AttributeError):
        ppserver.nothing  # noqa: B018
    with pytest.raises(ppserver.PPServerError, match="port"):
        ppserver.run("m:app", port=-1)


def fake_installation(folder: pathlib.Path) -> None:
    """What an installed package looks like from outside."""
    (folder / "ppserver").mkdir(parents=True)
    (folder / "ppserver" / "__init__.py").touch()
    (folder / "ppserver-9.dist-info").mkdir()
    (folder / "ppserver-9.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: ppserver\nVersion: 9\n"
    )


def test_a_checkout_that_shadows_the_installed_package_says_so(tmp_path: pathlib.Path) -> None:
    package = pathlib.Path(ppserver.__file__).parent
    if not (package / "native").is_dir():
        pytest.skip("this is a copy of the package without its sources")
    fake_installation(tmp_path / "site")
    done = serving_itself([package.parent, tmp_path / "site"], "--version")
    assert done.returncode == 0
    assert f"checkout, {package}, which shadows the installed package in {tmp_path}" in done.stderr


@pytest.mark.parametrize("installed", [False, True])
def test_a_checkout_without_an_extension_says_what_to_do(
    tmp_path: pathlib.Path, installed: bool
) -> None:
    package = pathlib.Path(ppserver.__file__).parent
    copy = tmp_path / "checkout" / "ppserver"
    shutil.copytree(package, copy, ignore=shutil.ignore_patterns("*.so", "native", "__pycache__"))
    (copy / "native").mkdir()
    if installed:
        fake_installation(tmp_path / "site")
    done = serving_itself([copy.parent, tmp_path / "site"], "m:app")
    assert done.returncode == 1
    assert f"{copy} is a source checkout without an extension" in done.stderr
    assert ("run ppserver from another directory" in done.stderr) is installed
    assert "Traceback" not in done.stderr


def serving_itself(path: list[pathlib.Path], *argv: str) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path))}
    command = [sys.executable, "-m", "ppserver", *argv]
    return subprocess.run(command, env=environ, capture_output=True, text=True)
