"""What a place gives the server of a context: who supervises it, and what is there already."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from ppserver.app.loader import Application
from ppserver.app.programs import MainThread
from ppserver.context.listeners import Listeners, Listening
from ppserver.context.seats import Seat


class Report:
    """What a context tells who supervises it. Here it tells nobody; others override what they
    want to hear."""

    def ready(self) -> None:
        """It serves."""

    def draining(self) -> None:
        """It takes no more connections."""

    def retire(self) -> None:
        """It has served its number of requests, and wants a successor."""

    def stop(self) -> None:
        """The application wants the whole server to end."""


@dataclasses.dataclass(frozen=True, slots=True)
class Supervision:
    """Who supervises a context, and what the context is to know of that."""

    report: Report
    multiprocess: bool = False
    slot: int = 0
    main: MainThread | None = None  # None: that of the context's event loop


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Wiring:
    """What a server does not see to itself. Of a program's own server, that is nothing."""

    application: Application | None = None
    make_application: Callable[[], Application] | None = None  # where it is made in the context
    listeners: Listeners | None = None  # to be closed at the end
    listening: Sequence[Listening] | None = None  # sockets that somebody else owns
    supervision: Supervision | None = None
    seat: Seat | None = None
    owns_process: bool = False
