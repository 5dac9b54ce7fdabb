"""Contexts of a real server count together."""

from __future__ import annotations

import http.client
import pathlib
import signal
import threading

import pytest
import serving

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(serving.PEER != "ppserver", reason="shared memory of ppserver"),
]

CLIENTS, EACH = 8, 60


def ask(server: serving.Server, path: str, times: int = 1) -> list[str]:
    connection = http.client.HTTPConnection(server.host, server.port, timeout=serving.MUST_SECONDS)
    answers = []
    try:
        for _ in range(times):
            connection.request("GET", path)
            response = connection.getresponse()
            assert response.status == 200
            answers.append(response.read().decode())
    finally:
        connection.close()
    return answers


def count_from_many(server: serving.Server) -> tuple[list[int], set[str]]:
    """What the requests of all clients were told: their numbers, and the threads."""
    answers: list[str] = []

    def run() -> None:
        answers.extend(ask(server, "/count", EACH))

    clients = [threading.Thread(target=run) for _ in range(CLIENTS)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    pairs = [answer.split() for answer in answers]
    return [int(number) for number, _ in pairs], {thread for _, thread in pairs}


@pytest.mark.parametrize(
    ("name", "place"), [("app", "processes"), ("wsgi", "processes"), ("app", "threads")]
)
def test_contexts_count_together(tmp_path: pathlib.Path, name: str, place: str) -> None:
    with serving.running(
        f"counting:{name}", tmp_path, contexts=2, lifespan="off", args=["--contexts", place]
    ) as server:
        threads: set[str] = set()
        total = 0
        while len(threads) < 2:  # A context that is quick enough may get every connection.
            numbers, seen = count_from_many(server)
            threads |= seen
            # Every request got a number of its own, and no number is left out.
            assert sorted(numbers) == list(range(total + 1, total + CLIENTS * EACH + 1))
            total += CLIENTS * EACH
        assert ask(server, "/total") == [f"{total} {total} 0"]


@pytest.mark.parametrize(
    ("contexts", "args"),
    [(1, ()), (2, ("--contexts", "processes")), (2, ("--contexts", "threads"))],
)
def test_what_is_made_too_late_is_an_error(
    tmp_path: pathlib.Path, contexts: int, args: tuple[str, ...]
) -> None:
    with serving.running(
        "counting:app", tmp_path, contexts=contexts, lifespan="off", args=args
    ) as server:
        assert "contexts have started" in ask(server, "/late")[0]


def test_a_replaced_context_goes_on_counting_and_a_reload_begins_anew(
    tmp_path: pathlib.Path,
) -> None:
    options = {"contexts": 2, "place": serving.SHARING, "args": ["--limit-max-requests", "20"]}
    with serving.running("counting:app", tmp_path, **options) as server:
        seen: set[str] = set()
        expected = 0
        while len(seen) < 3:
            number, context = ask(server, "/count")[0].split()
            seen.add(context)
            expected += 1
            assert int(number) == expected
        server.process.send_signal(signal.SIGHUP)
        server.wait_for_log("Reloaded")
        # The old contexts may still answer what they have accepted.
        serving.wait_until(lambda: ask(server, "/total") == ["0 0 0"], what="the new generation")
