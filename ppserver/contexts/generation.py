"""What the supervisor knows of its hosts and contexts."""

from __future__ import annotations

import dataclasses

from ppserver.contexts.channel import Channel
from ppserver.contexts.messages import Said


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
    contexts: dict[int, Context] = dataclasses.field(default_factory=dict)
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
