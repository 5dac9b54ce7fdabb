"""For tests of applications: a server that lives as long as a ``with`` block."""

from ppserver.testing.live import LiveServer

__all__ = ["LiveServer"]
