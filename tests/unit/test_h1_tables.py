"""The tables of the connection machine in the documentation are the ones of the code."""

from __future__ import annotations

import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/internals/parser.md").read_text()
CODE = (ROOT / "ppserver/native/proto/h1_conn.c").read_text()


def in_page(side: str) -> dict[str, list[str]]:
    table = PAGE.partition(f"| {side} side |")[2].partition("\n\n")[0]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()[2:]]
    return {row[0]: row[1:] for row in rows}


def in_code(side: str) -> dict[str, list[str]]:
    short = {"request": "REQ", "response": "RES"}[side]
    rows = re.findall(rf"^    \[PP_H1_{short}_(\w+)\] = \{{([^}}]*)\}}", CODE, re.MULTILINE)
    return {
        state: [
            "-" if cell.strip() == "X" else cell.strip().rpartition("_")[2]
            for cell in cells.split(",")
        ]
        for state, cells in rows
    }


@pytest.mark.parametrize("side", ["request", "response"])
def test_tables(side: str) -> None:
    assert in_page(side) == in_code(side)
    assert len(in_page(side)) >= 3
