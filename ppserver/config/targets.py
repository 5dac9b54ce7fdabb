"""How a setting names an application or a function: ``module:attribute``, taken apart."""

from __future__ import annotations

import dataclasses
import re

from ppserver.errors import ConfigError

_NAME = r"[^\W\d]\w*"
_TARGET = re.compile(
    rf"(?P<module>.*\.py|{_NAME}(?:\.{_NAME})*)"
    rf"(?::(?P<attr>{_NAME}(?:\.{_NAME})*)(?P<call>\(\))?)?"
)


@dataclasses.dataclass(frozen=True, slots=True)
class Target:
    """A module, or a ``.py`` file, and what is named in it."""

    module: str
    attr: str
    call: bool

    @property
    def is_file(self) -> bool:
        return self.module.endswith(".py")


def read(text: str) -> Target | None:
    """Take ``module:attr`` or ``module:factory()`` apart; None if it has another form."""
    match = _TARGET.fullmatch(text)
    if match is None:
        return None
    return Target(match["module"], match["attr"] or "", bool(match["call"]))


def parse_target(text: str) -> Target:
    """Take ``module:attr`` apart. ConfigError if it has another form."""
    target = read(text)
    if target is None:
        raise ConfigError(
            f"{text!r} is not of the form module:attribute",
            hint="for example myproject.main:app, main:create_app(), or main.py",
            setting="app",
        )
    return target


def parse_function(text: str, setting: str) -> Target:
    """Take ``module:function`` apart. ConfigError, naming the setting, if it has another form."""
    target = read(text)
    if target is None or not target.attr or target.call:
        raise ConfigError(
            f"{text!r} is not of the form module:function",
            setting=setting,
            hint="for example myproject.data:load",
        )
    return target
