"""Tell who started the server that it serves, whatever it logs: by the protocol of sd_notify.

https://www.freedesktop.org/software/systemd/man/latest/sd_notify.html: datagrams of ``NAME=value``
lines to the Unix socket that ``NOTIFY_SOCKET`` names.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Sequence

VARIABLE = "NOTIFY_SOCKET"


def tell(urls: Sequence[str]) -> None:
    """Say that the server is ready, and where it listens, if somebody wants to know.

    Never waits, never raises: a service manager that is gone must not end what serves.
    """
    path = os.environ.get(VARIABLE, "")
    if path[:1] not in ("/", "@"):
        return
    message = f"READY=1\nMAINPID={os.getpid()}\nSTATUS=running on {' '.join(urls)}"
    with contextlib.suppress(OSError, ValueError):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            sock.connect("\0" + path[1:] if path.startswith("@") else path)
            sock.send(message.encode())


class Listener:
    """The other end, for who starts a server: ``path`` goes to its ``NOTIFY_SOCKET``."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("")  # Linux chooses a free abstract name.
        self.path = "@" + self._socket.getsockname()[1:].decode()

    def urls(self, timeout: float) -> list[str] | None:
        """Where the server listens, as soon as it is ready; None if it is not by then."""
        self._socket.settimeout(timeout)
        try:
            lines = self._socket.recv(65536).decode().splitlines()
        except TimeoutError:
            return None
        status = [line for line in lines if line.startswith("STATUS=running on ")]
        return status[0].split()[2:] if "READY=1" in lines and status else None

    def close(self) -> None:
        self._socket.close()
