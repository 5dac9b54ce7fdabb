"""Settings: one table, from which come ``Config`` fields, flags, environment names and docs."""

from ppserver.config.contexts import HOOKS
from ppserver.config.settings import GROUPS, Config, check, convert, is_octal, own_names, table
from ppserver.config.table import ENV_PREFIX, Option, Setting, suggest

__all__ = [
    "ENV_PREFIX",
    "GROUPS",
    "HOOKS",
    "Config",
    "Option",
    "Setting",
    "check",
    "convert",
    "is_octal",
    "own_names",
    "suggest",
    "table",
]
