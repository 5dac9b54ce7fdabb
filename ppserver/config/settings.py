"""All settings together: ``Config``, and the table that flags, variables and docs come from.

Each group of settings is a module of its own; what they are made of is in
:mod:`~ppserver.config.table`.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

from ppserver.config import foreign
from ppserver.config.address import AddressSettings
from ppserver.config.application import ApplicationSettings
from ppserver.config.contexts import ContextSettings
from ppserver.config.http import HTTPSettings
from ppserver.config.limits import LimitSettings
from ppserver.config.logging import LoggingSettings
from ppserver.config.process import ProcessSettings
from ppserver.config.table import (
    Group,
    Option,
    checked,
    octal,
    options_of,
    read,
    suggest,
    taking_names,
)
from ppserver.config.timeouts import TimeoutSettings
from ppserver.errors import ConfigError

# In the order of the help and the reference.
GROUPS: tuple[type[Group], ...] = (
    ApplicationSettings,
    AddressSettings,
    ContextSettings,
    HTTPSettings,
    LimitSettings,
    TimeoutSettings,
    LoggingSettings,
    ProcessSettings,
)


def own_names(given: Mapping[str, Any], named: Callable[[str], str] = str) -> dict[str, Any]:
    """``given`` with the settings' own names in place of other names that they have.

    ConfigError for a name that is no setting's, and for two names of one setting. ``named`` is how
    a message writes a name.
    """
    found: dict[str, Any] = {}
    said: dict[str, str] = {}
    for word, value in given.items():
        name = _names().get(word)
        if name is None:
            hint = foreign.hint(word) or suggest(named(word), map(named, _names()))
            raise ConfigError(f"{named(word)}: there is no such setting", hint=hint)
        if name in said:
            raise ConfigError(
                f"{named(word)}: this is {named(said[name])} by another name, which is given, too"
            )
        found[name], said[name] = value, word
    return found


@taking_names(own_names)
@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(
    # A dataclass has the fields of its last base first.
    ProcessSettings,
    LoggingSettings,
    TimeoutSettings,
    LimitSettings,
    HTTPSettings,
    ContextSettings,
    AddressSettings,
    ApplicationSettings,
):
    """All settings of a server, checked once when it is made.

    ``workers`` is ``cores`` by another name. Raises :class:`~ppserver.errors.ConfigError`, naming
    setting and value, when one is wrong or there is no such setting.
    """

    def __post_init__(self) -> None:
        for name, option in table().items():
            object.__setattr__(self, name, checked(option, getattr(self, name)))
        for group in GROUPS:
            group.check_together(self)
        self._check_groups()

    def _check_groups(self) -> None:
        """What settings of one group say about those of another."""
        if self.contexts == "interpreters" and not isinstance(self.app, str):
            raise ConfigError(
                f"{self.app!r} cannot be given to other interpreters",
                setting="app",
                hint="--contexts interpreters needs an import string: 'module:app'",
            )
        if self.load == "each" and not isinstance(self.app, str):
            raise ConfigError(
                f"{self.app!r} is there already and cannot be imported by each context",
                setting="load",
                hint="give an import string: 'module:app'",
            )
        if self.load == "each" and self.interface == "parallel":
            raise ConfigError(
                "'each' is not for programs of the parallel API, which run once",
                setting="load",
                hint="open what a context needs in on_context_start",
            )


@functools.cache
def table() -> Mapping[str, Option]:
    """Every setting by name, in the order of the reference."""
    return options_of(Config)


@functools.cache
def _names() -> Mapping[str, str]:
    """The setting of each name, other names included."""
    return {name: option.name for option in table().values() for name in option.names}


def is_octal(name: str) -> bool:
    """Whether a setting is written in octal digits, as a file mode is."""
    return table()[name].setting.parse is octal


def convert(name: str, text: str) -> object:
    """The value a flag's or environment variable's text stands for.

    Raises ConfigError if the text cannot be one; ranges are for :func:`check`.
    """
    return read(table()[name], text)


def check(name: str, value: object) -> object:
    """``value`` in its normal form; ConfigError naming setting and value if it is wrong."""
    return checked(table()[name], value)
