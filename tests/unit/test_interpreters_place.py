"""The host's side of contexts in interpreters, as far as it needs none.

Before Python 3.13 nothing makes an interpreter: what a context does that cannot start shows there.
"""

from __future__ import annotations

import gc
import os
import select
import socket
import sys
import threading
from collections.abc import Iterator
from typing import Any, cast

import pytest

from ppserver.app.loader import Application
from ppserver.config import Config
from ppserver.context.listeners import Listening
from ppserver.context.seats import Seats
from ppserver.supervision.channel import Channel, SignalPipe
from ppserver.supervision.places.base import Order, Premises
from ppserver.supervision.places.interpreters import Interpreters

cannot_start = pytest.mark.skipif(
    sys.version_info >= (3, 13), reason="interpreters can be made here, and never destroyed"
)


async def app(scope: Any, receive: Any, send: Any) -> None: ...


@pytest.fixture
def premises() -> Iterator[Premises]:
    ours, theirs = Channel.pair()
    pipe = SignalPipe({})
    seats = Seats(1, "kernel")
    application = cast(Any, Application)(app, "asgi", "m:app")
    yield Premises(Config("m:app"), application, seats, theirs, pipe, None, os.getppid())
    seats.close()
    pipe.close()
    ours.close()
    theirs.close()


@pytest.fixture
def place(premises: Premises) -> Iterator[Interpreters]:
    made = Interpreters(premises)
    yield made
    made._turn.take()  # Whoever had it has given it back.
    os.close(made._turn.reader)
    os.close(made._turn.writer)


def order() -> Order:
    return Order(0, None, [Listening(socket.socket(), "shared")])


def wait_ended(premises: Premises, place: Interpreters) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    while not found:
        assert select.select([premises.pipe], [], [], 20)[0], "no context ended"
        premises.pipe.clear()
        found = place.ended()
    return found


@cannot_start
def test_one_that_cannot_start_ends_with_3_and_leaves_nothing_open(
    premises: Premises, place: Interpreters, caplog: pytest.LogCaptureFixture
) -> None:
    gc.collect()  # Other tests may have left some that close when they are found.
    before = set(os.listdir("/proc/self/fd"))
    for _ in range(2):  # The second gets its turn: the first has given it back.
        key = place.start(order())
        assert wait_ended(premises, place) == [(key, 3)]
    assert set(os.listdir("/proc/self/fd")) <= before
    assert caplog.text.count("Context 1 could not start: interpreters") == 2


@cannot_start
def test_those_that_wait_for_their_turn_do_not_repeat_the_mistake(
    premises: Premises, place: Interpreters, caplog: pytest.LogCaptureFixture
) -> None:
    place._turn.take()
    keys = [place.start(order()) for _ in range(3)]
    place._turn.give()
    ended: dict[int, int] = {}
    while len(ended) < 3:
        ended.update(wait_ended(premises, place))
    assert set(ended) == set(keys)
    assert sorted(ended.values()) == [0, 0, 3]
    assert caplog.text.count("could not start") == 1


def test_one_that_is_stopped_before_its_turn_makes_no_interpreter(
    premises: Premises, place: Interpreters, caplog: pytest.LogCaptureFixture
) -> None:
    gc.collect()  # Other tests may have left some that close when they are found.
    before = set(os.listdir("/proc/self/fd"))
    place._turn.take()
    key = place.start(order())
    place.tell(key, "stop")
    place._turn.give()
    assert wait_ended(premises, place) == [(key, 0)]
    place.tell(key, "stop")  # It is gone: nothing to do.
    assert set(os.listdir("/proc/self/fd")) <= before
    assert caplog.text == ""


def test_one_has_ended_when_it_cannot_touch_the_hosts_pipe_any_more(
    premises: Premises, place: Interpreters, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached, reported = threading.Event(), threading.Event()
    happened: list[str] = []

    def wake(pipe: SignalPipe) -> None:
        reached.set()
        reported.wait(0.2)  # The host may look by itself before it is woken.
        happened.append("woken")

    monkeypatch.setattr(SignalPipe, "wake", wake)
    place._turn.take()
    key = place.start(order())
    place.tell(key, "stop")
    place._turn.give()
    assert reached.wait(60)
    assert place.ended() == [(key, 0)]
    happened.append("reported")
    reported.set()
    assert happened == ["woken", "reported"]
