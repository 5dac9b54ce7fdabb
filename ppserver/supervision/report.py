"""What a context tells the supervisor, in whatever place it lives."""

from __future__ import annotations

from collections.abc import Sequence

from ppserver.context.listeners import Listening
from ppserver.context.wiring import Report
from ppserver.supervision import messages
from ppserver.supervision.channel import Channel


class ChannelReport(Report):
    """Says it by the sending end of the host's channel, which every context keeps."""

    def __init__(self, channel: Channel, key: int, listening: Sequence[Listening]) -> None:
        self._channel = channel
        self._key = key
        self._listening = listening

    def ready(self) -> None:
        self._say("ready")

    def draining(self) -> None:
        """From here on the context uses its sockets no more."""
        self.close_sockets()
        self._say("draining")

    def retire(self) -> None:
        self._say("retire")

    def stop(self) -> None:
        self._say("stop")

    def imported(self, interface: str, loop: str) -> None:
        """It has imported the application for itself."""
        messages.send(self._channel, messages.Imported(self._key, interface, loop))

    def close_sockets(self) -> None:
        """Close the context's listening sockets. Again is harmless."""
        for entry in self._listening:
            entry.socket.close()

    def _say(self, kind: str) -> None:
        messages.send(self._channel, messages.Said(kind, self._key))
