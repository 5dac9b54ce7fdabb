"""Random requests that leave traces on their Task: what the next ones see is what they see where
each request has a Task of its own (``--task plain``)."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import serving
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rawhttp import Raw

DEEDS = sorted(serving.load_app("touching").DEEDS)

# A request is a list of deeds; one without any makes the others' Task a used one.
REQUEST = st.lists(st.sampled_from(DEEDS), max_size=5)
REQUESTS = st.lists(REQUEST, min_size=1, max_size=8)


@pytest.fixture(scope="module")
def servers(serve: Callable[..., Any], loop: str) -> list[serving.Server]:
    found = []
    for task in ("worker", "plain"):
        server = serve("touching:app", loop=loop, task=task, args=("--no-access-log",))
        server.allow(r"CancelledError")
        found.append(server)
    return found


def path_of(deeds: list[str]) -> str:
    return "/do/" + ",".join(deeds)


def ask(raw: Raw, path: str) -> Any:
    response = raw.ask(path)
    assert response.status == 200, (path, response)
    return json.loads(response.body)


def story(raw: Raw, requests: list[list[str]]) -> list[Any]:
    """What each request has seen, and what came of all of them."""
    ask(raw, "/forget")
    told = []
    for deeds in requests:
        told.append(ask(raw, path_of(deeds)))
        told.append(ask(raw, path_of([])))
    told.append(ask(raw, "/report"))
    return told


def compare(servers: list[serving.Server], examples: int) -> None:
    # A connection that is broken by a failure must not be the next example's.
    worker, plain = Raw(servers[0], timeout=60), Raw(servers[1], timeout=60)

    @settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(REQUESTS)
    def run(requests: list[list[str]]) -> None:
        assert story(worker, requests) == story(plain, requests)

    with worker, plain:
        run()


def test_nobody_can_tell(servers: list[serving.Server]) -> None:
    compare(servers, 25)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_nobody_can_tell_in_many_tries(servers: list[serving.Server], more: bool) -> None:
    if not more:
        pytest.skip("runs in make test-all")
    compare(servers, 2000)
