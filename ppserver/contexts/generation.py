"""What the supervisor knows of its hosts and contexts, and how it ends one by force."""

from __future__ import annotations

import dataclasses
import os
import signal
from pathlib import Path

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
    pid: int
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


def kill(pid: int) -> None:
    """End a child of this process that was not waited for yet, or any process at all."""
    try:
        os.kill(pid, signal.SIGKILL)
    except OSError:
        pass


def kill_child_of(parent: int, pid: int) -> bool:
    """End ``pid`` if it is a child of ``parent``; False if that could not be found out.

    The number came from who may have made it up, and may belong to another process by now; so the
    process is held first, then looked at.
    """
    try:
        held = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    try:
        if _parent_of(pid) != parent:
            return False
        signal.pidfd_send_signal(held, signal.SIGKILL)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    finally:
        os.close(held)
    return True


def _parent_of(pid: int) -> int:
    """OSError if there is none, or no /proc."""
    return int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[1])


def reap_orphans(but: frozenset[int] | set[int] | tuple[int, ...]) -> None:
    """As a container's first process: take leave of everybody's orphans that ended.

    Leaves the children in ``but`` to those who want their exit status.
    """
    while True:
        try:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if ended is None or ended.si_pid in but:
                return
            os.waitpid(ended.si_pid, 0)
        except ChildProcessError:
            return
