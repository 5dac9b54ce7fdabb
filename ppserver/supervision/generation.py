"""What the supervisor knows of its hosts and contexts."""

from __future__ import annotations

import dataclasses
import logging
import signal

from ppserver.supervision import family, messages
from ppserver.supervision.channel import Channel
from ppserver.supervision.messages import Said

logger = logging.getLogger("ppserver.error")

_PROGRESS_MAX = 60.0
_TELL = {
    "stop": signal.SIGTERM,
    "quit": signal.SIGQUIT,
    "reopen": signal.SIGUSR1,
    "kill": signal.SIGKILL,
}


@dataclasses.dataclass(slots=True)
class Context:
    """A context as the supervisor knows it; its key is the number of its process or thread."""

    slot: int
    key: int
    seat: int | None
    started: float
    ready: bool = False
    retiring: bool = False  # it has asked for its successor
    leaving: bool = False
    drains: bool = False  # it uses its sockets no more
    kill_at: float = 0.0


@dataclasses.dataclass(slots=True)
class Generation:
    """A host and its contexts."""

    number: int
    pid: int  # of the host; 0 once it has ended
    channel: Channel
    started: float
    place: str = ""
    loaded: bool = False
    opened: str = ""  # its import opened what contexts must not share: the application's interface
    leaving: bool = False
    served: bool = False
    warned: bool = False  # of messages of strangers
    kill_at: float = 0.0
    progress_at: float = 0.0  # when to say how far its start is
    contexts: dict[int, Context] = dataclasses.field(default_factory=dict)
    waiting: dict[int, float] = dataclasses.field(default_factory=dict)  # slot → when to start one
    # Slots and seats of contexts that were ordered; no word of them yet.
    starting: list[tuple[int, int | None]] = dataclasses.field(default_factory=list)
    early: list[tuple[int, Said]] = dataclasses.field(default_factory=list)

    def in_slot(self, slot: int) -> list[Context]:
        return [c for c in self.contexts.values() if c.slot == slot and not c.leaving]

    def is_settled(self, slot: int) -> bool:
        """Whether each context in ``slot`` serves, or has let go of its sockets."""
        return all(slot != ordered for ordered, _ in self.starting) and all(
            context.drains if context.leaving else context.ready
            for context in self.contexts.values()
            if context.slot == slot
        )

    def processes(self) -> set[int]:
        """The host, and contexts that are processes."""
        found = {self.pid} if self.pid else set()
        return found.union(self.contexts) if self.place == "processes" else found

    def tell(self, context: Context, what: str) -> None:
        """Pass "stop", "quit" or "reopen" on to a context, or "kill" to one that is a process."""
        if self.place == "processes":
            family.send(context.key, _TELL[what])
        else:
            messages.send(self.channel, messages.Tell(context.key, what))

    def kill_context(self, context: Context, stopping: bool = False) -> None:
        """End a context by force. A thread has no end of its own: its host goes with it, unless
        other contexts there still serve."""
        if self.place == "processes":
            self.tell(context, "kill")
        elif (self.leaving or stopping) and self.pid:
            family.send(self.pid, signal.SIGKILL)

    def kill_all(self) -> None:
        """End the host and its contexts by force."""
        for pid in self.processes():
            family.send(pid, signal.SIGKILL)

    def say_progress(self, now: float, slots: int) -> None:
        """How far its start is."""
        taken = now - self.started
        self.progress_at = now + min(taken, _PROGRESS_MAX)
        if self.loaded:
            ready = sum(context.ready for context in self.contexts.values())
            logger.info("%d of %d contexts are ready after %.0f s", ready, slots, taken)
        else:
            logger.info("The application is still being loaded after %.0f s", taken)
