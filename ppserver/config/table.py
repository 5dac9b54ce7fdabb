"""What a setting is, how it is read and how it is checked. Nothing here knows any setting.

A group of settings is a dataclass whose fields are made by :func:`setting`. A setting's name is the
same everywhere: field ``limit_pipeline``, flag ``--limit-pipeline``, environment variable
``PPSERVER_LIMIT_PIPELINE``, key ``limit_pipeline`` in the TOML file and in the reference.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import os
import re
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, TypeVar

from ppserver.errors import ConfigError

ENV_PREFIX = "PPSERVER_"
_TRUE = {"1", "true", "yes", "on"}
_FALSE = {"0", "false", "no", "off"}
_DAY = 86400.0

T = TypeVar("T")
C = TypeVar("C", bound=type)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """How one setting is shown, read and checked."""

    help: str
    group: str = ""  # its title, filled in by `options_of`
    metavar: str = ""
    choices: tuple[str, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    flags: tuple[str, ...] = ()  # short ones
    aliases: tuple[str, ...] = ()  # other names, valid in every source
    separator: str = ","
    parse: Callable[[str], object] | None = None


def setting(default: T, help: str, metavar: str = "", **more: Any) -> T:  # noqa: A002
    """A field of a group: its default, its help, what stands for its value in the help, and the
    other fields of `Setting`."""
    about = Setting(help=help, metavar=metavar, **more)
    field: Any = dataclasses.field(default=default, metadata={"setting": about})
    return typing.cast(T, field)


def choice(words: str, help: str) -> str:  # noqa: A002
    """One of some words, ``a|b|c``, the first of which is the default."""
    choices = tuple(words.split("|"))
    return setting(choices[0], help, choices=choices)


def number(default: int, least: int, most: int, help: str) -> int:  # noqa: A002
    """How many of something."""
    return setting(default, help, "N", minimum=least, maximum=most)


def size(default: int, least: int, most: int, help: str) -> int:  # noqa: A002
    """So many bytes."""
    return setting(default, help, "BYTES", minimum=least, maximum=most)


def seconds(default: float, help: str) -> float:  # noqa: A002
    """A time of up to a day."""
    return setting(default, help, "SECONDS", minimum=0, maximum=_DAY)


def octal(text: str) -> object:
    """A number that is written in octal digits, as a file mode is."""
    if not re.fullmatch(r"(0o)?[0-7]{1,4}", text):
        raise ValueError("is not an octal number such as 022")
    return int(text, 8)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Group:
    """Settings that the help and the reference show together."""

    TITLE: ClassVar[str] = ""

    def check_together(self) -> None:
        """Raises ConfigError if settings of the group contradict each other."""


class Option(typing.NamedTuple):
    """A row of the table: a setting with what its annotation and default say."""

    name: str
    kind: type
    optional: bool
    default: Any
    setting: Setting

    @property
    def names(self) -> tuple[str, ...]:
        return (self.name, *self.setting.aliases)

    @property
    def flag(self) -> str:
        return flag_of(self.name)

    @property
    def env(self) -> str:
        return variable_of(self.name)


def flag_of(name: str) -> str:
    return "--" + name.replace("_", "-")


def variable_of(name: str) -> str:
    return ENV_PREFIX + name.upper()


def options_of(cls: type) -> Mapping[str, Option]:
    """The settings of a dataclass made of groups, by name, in the order of the groups."""
    hints = typing.get_type_hints(cls)
    titles = {
        name: group.TITLE
        for group in cls.__mro__
        if issubclass(group, Group)
        for name in inspect.get_annotations(group)
    }
    rows = {}
    for field in dataclasses.fields(cls):
        base = hints[field.name]
        members = typing.get_args(base) if isinstance(base, types.UnionType) else (base,)
        kinds = [typing.get_origin(kind) or kind for kind in members if kind is not types.NoneType]
        is_any = kinds[0] is Any or not isinstance(kinds[0], type)
        kind = object if is_any else kinds[0]
        about = dataclasses.replace(field.metadata["setting"], group=titles[field.name])
        rows[field.name] = Option(field.name, kind, types.NoneType in members, field.default, about)
    return types.MappingProxyType(rows)


def suggest(word: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """A did-you-mean hint for ``word``, or ``""`` if nothing known is near."""
    import difflib  # Of use for mistakes only; every context would keep it.

    near = difflib.get_close_matches(word, list(known), n=1, cutoff=cutoff)
    return f"did you mean {near[0]}?" if near else ""


def taking_names(translate: Callable[[Mapping[str, Any]], dict[str, Any]]) -> Callable[[C], C]:
    """A decorator for the dataclass of all settings: ``translate`` gets the keywords that it is
    made with, and gives those that its fields have."""

    def decorated(cls: C) -> C:
        made_with: Any = cls.__init__  # type: ignore[misc]

        @functools.wraps(made_with)
        def make(self: Any, *args: Any, **keywords: Any) -> None:
            made_with(self, *args, **translate(keywords))

        cls.__init__ = make  # type: ignore[misc]
        return cls

    return decorated


def read(option: Option, text: str) -> object:
    """The value a flag's or environment variable's text stands for.

    Raises ConfigError if the text cannot be one; ranges are for :func:`checked`.
    """
    about = option.setting
    try:
        if about.parse is not None:
            return about.parse(text)
        if option.kind is bool:
            return _boolean(text)
        if option.kind is int:
            return _integer(text)
        if option.kind is float:
            return _number(text)
    except ValueError as error:
        raise ConfigError(f"{text!r} {error}", setting=option.name) from None
    if option.kind is tuple:
        return tuple(part.strip() for part in text.split(about.separator) if part.strip())
    return text


def checked(option: Option, value: object) -> object:
    """``value`` in its normal form; ConfigError naming setting and value if it is wrong."""
    about = option.setting
    if option.kind is object or (value is None and option.optional):
        return value
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if about.parse is not None and isinstance(value, str):
        value = read(option, value)
        if isinstance(value, str):
            return value
    if option.kind is tuple:
        value = _strings(option, value)
    elif option.kind is float and type(value) is int:
        value = float(value)
    if type(value) is not option.kind:
        wanted = {int: "a whole number", float: "a number", bool: "true or false"}
        kind = wanted.get(option.kind, "a string")
        raise ConfigError(f"{value!r} is not {kind}", setting=option.name)
    _check_range(option, value)
    return value


def _check_range(option: Option, value: object) -> None:
    about = option.setting
    wrong = hint = ""
    if about.choices and value not in about.choices:
        wrong = f"is not one of {', '.join(about.choices)}"
        hint = suggest(str(value), about.choices)
    elif isinstance(value, str) and "\0" in value:
        wrong = "contains a NUL character"
    elif isinstance(value, int | float):
        if value != value:
            wrong = "is not a number"
        elif about.minimum is not None and value < about.minimum:
            wrong = f"is too small (at least {about.minimum})"
        elif about.maximum is not None and value > about.maximum:
            wrong = f"is too large (at most {about.maximum})"
    if wrong:
        raise ConfigError(f"{value!r} {wrong}", setting=option.name, hint=hint)


def _strings(option: Option, value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        value = read(option, value)
    if not isinstance(value, list | tuple) or not all(isinstance(part, str) for part in value):
        raise ConfigError(f"{value!r} is not a list of strings", setting=option.name)
    return tuple(value)


def _boolean(text: str) -> bool:
    word = text.strip().lower()
    if word in _TRUE:
        return True
    if word in _FALSE:
        return False
    raise ValueError("is neither true nor false")


def _integer(text: str) -> int:
    if not re.fullmatch(r"[+-]?[0-9]+", text):
        raise ValueError("is not a whole number")
    return int(text)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError("is not a number") from None
