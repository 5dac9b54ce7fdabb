"""Files that are programs because of what they import, which a package makes known."""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Iterator

import pytest

from ppserver.app import programs
from ppserver.app.loader import load, recognise
from ppserver.config import Config
from ppserver.errors import LoadError

PACKAGE = """
class Site:
    is_ppserver_program = True
    usage = "sites.serve(...)"
    addresses = []
    def scheme(self, tag):
        return "gopher"

site = Site()

def loaded():
    return site

def serve(address):
    site.addresses.append([address])
"""


@pytest.fixture
def folder(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[pathlib.Path]:
    """Where ``sites`` is installed, a package of programs; and the programs are."""
    site = tmp_path / "site"
    (site / "sites").mkdir(parents=True)
    (site / "sites" / "__init__.py").write_text("from sites.kept import serve")
    (site / "sites" / "kept.py").write_text(PACKAGE)
    (site / "sites-1.dist-info").mkdir()
    (site / "sites-1.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: sites\nVersion: 1\n"
    )
    (site / "sites-1.dist-info" / "entry_points.txt").write_text(
        f"[{programs.GROUP}]\nsites = sites.kept:loaded\n"
    )
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])
    cache = programs._known
    cache.cache_clear()
    yield tmp_path
    cache.cache_clear()
    for name in ("sites", "sites.kept"):
        sys.modules.pop(name, None)


def test_a_program_of_another_package(folder: pathlib.Path) -> None:
    (folder / "program.py").write_text("import sites\nsites.serve('127.0.0.1:70')\n")
    config = recognise(Config("program.py", app_dir=str(folder)))
    assert config.interface == "parallel"
    application = load(config)
    assert application.program is sys.modules["sites.kept"].site
    ((address,),) = application.addresses
    assert (str(address), address.scheme) == ("127.0.0.1:70", "gopher")


def test_a_program_that_serves_nothing_is_told_how(folder: pathlib.Path) -> None:
    (folder / "program.py").write_text("import sites\n")
    with pytest.raises(LoadError, match="registers nothing") as caught:
        load(Config("program.py", app_dir=str(folder)))
    assert caught.value.hint == "sites.serve(...)"


def test_its_name_in_a_module_of_the_users_own(folder: pathlib.Path) -> None:
    (folder / "sites.py").write_text("")
    (folder / "program.py").write_text("import sites\nasync def app(scope, receive, send): ...\n")
    assert recognise(Config("program.py", app_dir=str(folder))).interface == "auto"


def test_without_any_such_package(folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "_known", dict)
    (folder / "program.py").write_text("import sites\n")
    assert recognise(Config("program.py", app_dir=str(folder))).interface == "auto"
    with pytest.raises(LoadError, match="no package that makes programs is installed"):
        load(Config("program.py", app_dir=str(folder), interface="parallel"))
