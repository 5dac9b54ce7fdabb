"""The wire cases: every rule, however the input is cut, with every scan the processor has."""

from __future__ import annotations

import collections

import h1dump
import pytest

pytestmark = pytest.mark.skipif(h1dump.compiler() is None, reason="no C compiler for h1_dump")

CASES = h1dump.read_cases()


@pytest.fixture(scope="module")
def logs() -> dict[h1dump.Case, str]:
    """Of all cases in as few runs as possible; a case whose cuts differ is left out."""
    found = {}
    for limits in {case.limits for case in CASES}:
        cases = [case for case in CASES if case.limits == limits]
        data = [case.data for case in cases]
        try:
            found_now = h1dump.dump(data, "--cuts", "all", *cases[0].options)
        except AssertionError:
            continue
        found.update(zip(cases, found_now, strict=True))
    return found


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.file}: {case.title}")
def test_case(case: h1dump.Case, logs: dict[h1dump.Case, str]) -> None:
    assert case.events is not None, "no events: python tests/h1dump.py fills them in"
    if case not in logs:
        (logs[case],) = h1dump.dump([case.data], "--cuts", "all", *case.options)
    assert logs[case] == case.events


@pytest.mark.slow
def test_every_scan_agrees() -> None:
    variants = h1dump.scan_variants()
    assert variants[0] == "scalar"
    for limits in {case.limits for case in CASES}:
        cases = [case for case in CASES if case.limits == limits]
        for name in variants:
            logs = h1dump.dump([case.data for case in cases], "--scan", name, *cases[0].options)
            assert logs == [case.events for case in cases], name


def test_titles_are_unique() -> None:
    titles = collections.Counter((case.file, case.title) for case in CASES)
    assert [title for title, count in titles.items() if count > 1] == []
    assert len(CASES) > 200


def test_a_result_that_depends_on_the_cut_would_be_seen() -> None:
    # The comparison itself: the log of bytes fed one by one equals the whole one's.
    data = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcGET"
    assert h1dump.dump([data], "--cuts", "bytes") == h1dump.dump([data], "--cuts", "whole")
