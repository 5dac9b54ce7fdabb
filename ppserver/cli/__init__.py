"""The command line."""

from ppserver.cli.command import main

__all__ = ["main"]
