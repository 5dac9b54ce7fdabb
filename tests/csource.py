"""C source as the checks of tests/tidy.py read it: by lines, without a compiler."""

from __future__ import annotations

import re
from collections.abc import Iterator

INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')
# What begins in the first column and has a body, and what is given a value there.
FUNCTION = re.compile(
    r"^(?!typedef\b)[A-Za-z_][\w \t*]*?\b(pp_\w+)\s*\([^;{}]*\)\s*\{", re.MULTILINE
)
VARIABLE = re.compile(r"^[A-Za-z_][\w \t*]*?\b(pp_\w+)(?:\[[^\]\n]*\])*\s*=", re.MULTILINE)
NAME = re.compile(r"\bpp_\w+")
TAG = re.compile(r"\b(?:struct|enum|union)\s+\w+")


def without_comments(source: str) -> str:
    """C with comments and literals blanked, line for line."""

    def blank(match: re.Match[str]) -> str:
        text = match[0]
        if text.startswith("/"):
            return re.sub(r"[^\n]", " ", text)
        return text[0] + " " * (len(text) - 2) + text[-1]

    pattern = r"/\*.*?\*/|//[^\n]*|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'"
    return re.sub(pattern, blank, source, flags=re.DOTALL)


def includes(source: str) -> Iterator[tuple[int, str, str]]:
    """Line, `<` or `"`, and name."""
    for number, line in enumerate(source.splitlines(), 1):
        if match := INCLUDE.match(line):
            yield number, match[1], match[2]


def defined(plain: str) -> set[str]:
    """The functions and variables that a source without comments defines for others."""
    found = {match[1] for match in FUNCTION.finditer(plain)}
    return found | {match[1] for match in VARIABLE.finditer(plain)}


def used(plain: str) -> Iterator[tuple[int, str]]:
    """Line and name of what a source without comments uses: calls, and functions as values.

    Declarations, which begin in the first column, use nothing.
    """
    for number, line in enumerate(plain.splitlines(), 1):
        if line[:1].isspace() or line.startswith("#define"):
            for match in NAME.finditer(TAG.sub("", line)):
                yield number, match[0]
