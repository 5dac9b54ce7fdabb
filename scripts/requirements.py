"""Print the requirements of the named extras of pyproject.toml, one to a line.

    python scripts/requirements.py test dev

A reference to ppserver's own extras is expanded, so that pip can install what an extra needs
without building the project itself. "build" stands for the build requirements; with anything else
come those that every installation has.
"""

import re
import sys
import tomllib
from pathlib import Path


def expand(extras: list[str]) -> list[str]:
    root = Path(__file__).resolve().parent.parent
    data = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    table: dict[str, list[str]] = dict(data["project"]["optional-dependencies"])
    table["build"] = data["build-system"]["requires"]
    found: dict[str, None] = {}
    if extras != ["build"]:
        found.update(dict.fromkeys(data["project"]["dependencies"]))
    waiting = list(reversed(extras))
    while waiting:
        for requirement in table[waiting.pop()]:
            own = re.fullmatch(r"ppserver\[(.*)\]", requirement)
            if own:
                waiting.extend(own[1].split(","))
            else:
                found[requirement] = None
    return list(found)


if __name__ == "__main__":
    print("\n".join(expand(sys.argv[1:])))
