"""Which layout of an object's header each Python gets, and what is said where there is none."""

from __future__ import annotations

import pathlib
import re
import shutil
import subprocess

import pytest
from snippets import run_python

BRIDGE = pathlib.Path(__file__).parents[2] / "ppserver" / "native" / "bridge"
LAYOUTS = ("312", "313t", "314", "none")
UNTESTED = "free-threaded Python lays objects out in a way not supported yet from 3.14 on"


@pytest.mark.skipif(not shutil.which("cc"), reason="needs a compiler")
@pytest.mark.parametrize(
    ("version", "build", "layout", "reason"),
    [
        ("3.11", "", "none", "objects can be made immortal from Python 3.12 on"),
        ("3.12", "", "312", ""),
        ("3.13", "", "312", ""),
        ("3.13", "t", "313t", ""),
        ("3.14", "", "314", ""),
        ("3.14", "t", "none", UNTESTED),
        ("3.15", "", "314", ""),
        ("3.15", "t", "none", UNTESTED),
        ("3.16", "", "none", "this version of Python lays objects out in a way not supported yet"),
        ("3.16", "t", "none", "this version of Python lays objects out in a way not supported yet"),
    ],
)
def test_each_python_has_one_layout(
    tmp_path: pathlib.Path, version: str, build: str, layout: str, reason: str
) -> None:
    """Of the files with layouts the preprocessor leaves one, also for Pythons that are not here."""
    (tmp_path / "bridge").mkdir()
    (tmp_path / "bridge" / "freeze_header.h").touch()
    major, minor = version.split(".")
    macros = {
        "PY_VERSION_HEX": f"0x{int(major):02X}{int(minor):02X}0000",
        "SIZEOF_VOID_P": "8",
    }
    if build == "t":
        macros["Py_GIL_DISABLED"] = "1"
    found = {}
    for name in LAYOUTS:
        flags = [f"-D{macro}={value}" for macro, value in macros.items()]
        command = ["cc", "-E", "-P", f"-I{tmp_path}", *flags]
        done = subprocess.run(
            [*command, str(BRIDGE / f"freeze_header_{name}.c")],
            capture_output=True,
            text=True,
            check=True,
        )
        if "pp_freeze_header_refusal" in done.stdout:
            found[name] = re.findall(r'return "(.*)";', done.stdout)
    assert found == {layout: [reason] if reason else []}


def test_why_nothing_is_frozen_is_what_the_interpreter_says() -> None:
    """Pythons that cannot be run here: their reason is in the report, for the line at INFO."""
    run_python(
        f"""
        import ppserver
        from ppserver import _native, freezing
        _native.freeze_support = lambda: ("off", {UNTESTED!r})
        report = freezing.prepare(ppserver.Config("a:b"), [["data"]])
        assert str(report) == "data not frozen after load: " + {UNTESTED!r}, report
        assert report.objects == 0
        """
    )
