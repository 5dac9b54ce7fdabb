"""What a protocol class says about itself, checked and put into the form that the core wants."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

CALLBACKS = (
    "connection_made",
    "data_received",
    "line_received",
    "data_sent",
    "send_complete",
    "send_failed",
    "connection_closed",
    "connection_lost",
    "connection_timeout",
    "connection_error",
    "exception_handler",
)
_BYTES = ("initial_bytes_to_send", "next_bytes_to_send")
_LINE_MAX = 65536
_ATTEMPTS_MAX = 256
_SECONDS_MAX = 86_400


@dataclasses.dataclass(frozen=True, slots=True)
class Protocol:
    """A protocol as the core serves it: one of those given to ``Core.serve_parallel``.

    ``maker`` is the class, of which each connection gets an instance, or the one instance for all.
    ``initial`` and ``next`` are bytes, or None with the number of arguments of the method that
    gives them, -1 if there is none. ``routes`` are the methods of an ``http11`` protocol.
    """

    maker: Any
    parent: Any
    is_class: bool
    raw: bool
    line_mode: bool
    wait_for_eol: bool
    low_latency: bool
    concurrency: bool
    line_max: int
    rate_limit: int
    idle_ms: int
    receive_again: int
    send_again: int
    initial: bytes | None
    initial_args: int
    next: bytes | None
    next_args: int
    callbacks: tuple[str, ...]
    routes: tuple[str, ...]

    def as_mapping(self) -> dict[str, Any]:
        """The fields by the names by which the core reads them."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}


def describe(protocol: Any, parent: Any) -> Protocol:
    """Read the attributes of a protocol class or instance.

    Raises ValueError or TypeError, naming the protocol and the attribute, if one cannot be.
    """
    name = getattr(protocol, "__qualname__", type(protocol).__qualname__)
    flags = {key: bool(getattr(protocol, key, False)) for key in ("throughput", "concurrency")}
    if all(flags.values()):
        raise ValueError(f"{name}: concurrency and throughput exclude each other")
    raw = not getattr(protocol, "http11", False)
    callbacks = tuple(key for key in CALLBACKS if callable(getattr(protocol, key, None)))
    initial, initial_args = _bytes_to_send(protocol, name, _BYTES[0])
    following, next_args = _bytes_to_send(protocol, name, _BYTES[1])
    line_mode = bool(getattr(protocol, "line_mode", False))
    if line_mode and "line_received" not in callbacks:
        raise ValueError(f"{name}: line_mode without a method line_received")
    return Protocol(
        maker=protocol,
        parent=parent,
        is_class=inspect.isclass(protocol),
        raw=raw,
        line_mode=line_mode,
        wait_for_eol=bool(getattr(protocol, "wait_for_eol", True)),
        low_latency=bool(getattr(protocol, "low_latency", False)),
        concurrency=flags["concurrency"],
        line_max=max(_number(protocol, name, "max_line_length", _LINE_MAX, 2**31 - 1), 1),
        rate_limit=_number(protocol, name, "rate_limit", 0, 2**31 - 1),
        idle_ms=_milliseconds(protocol, name, "idle_timeout"),
        receive_again=_attempts(protocol, name, "max_sync_recv_attempts"),
        send_again=_attempts(protocol, name, "max_sync_send_attempts"),
        initial=initial,
        initial_args=initial_args,
        next=following,
        next_args=next_args,
        callbacks=callbacks,
        routes=() if raw else _routes(protocol),
    )


def _number(protocol: Any, name: str, key: str, default: int, most: int) -> int:
    value = getattr(protocol, key, default)
    if not isinstance(value, int) or not 0 <= value <= most:
        raise ValueError(f"{name}.{key}: expected 0 to {most}, got {value!r}")
    return value


def _milliseconds(protocol: Any, name: str, key: str) -> int:
    value = getattr(protocol, key, 0)
    if not isinstance(value, (int, float)) or not 0 <= value <= _SECONDS_MAX:
        raise ValueError(f"{name}.{key}: expected 0 to {_SECONDS_MAX} seconds, got {value!r}")
    return max(round(value * 1000), int(value > 0))


def _attempts(protocol: Any, name: str, key: str) -> int:
    """How often to try again after the first time; without a first time it would never begin."""
    return max(_number(protocol, name, key, 1, _ATTEMPTS_MAX) - 1, 0)


def _bytes_to_send(protocol: Any, name: str, key: str) -> tuple[bytes | None, int]:
    """A constant, or how many arguments beside ``self`` the method takes; (None, -1) if neither."""
    value = getattr(protocol, key, None)
    if value is None:
        return None, -1
    if isinstance(value, str):
        return value.encode(), -1
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value), -1
    if callable(value):
        return None, _arguments(protocol, key, value)
    raise TypeError(f"{name}.{key}: expected bytes, str or a callable, not {type(value).__name__}")


def _arguments(protocol: Any, key: str, value: Callable[..., Any]) -> int:
    """1 if a method wants the transport, 0 if it does without."""
    bound = inspect.ismethod(value) or not inspect.isclass(protocol)
    bound = bound or isinstance(inspect.getattr_static(protocol, key), staticmethod)
    try:
        parameters = list(inspect.signature(value).parameters.values())
    except (TypeError, ValueError):
        return 0
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    count = sum(parameter.kind in kinds for parameter in parameters)
    star = any(parameter.kind is inspect.Parameter.VAR_POSITIONAL for parameter in parameters)
    return int(star or count > (0 if bound else 1))


def _routes(protocol: Any) -> tuple[str, ...]:
    """The names of the public methods that are no callbacks: each answers the path of its name."""
    reserved = {*CALLBACKS, *_BYTES, *getattr(protocol, "not_routes", ())}
    names = []
    for key in dir(protocol):
        if not key.startswith("_") and key not in reserved:
            value = getattr(protocol, key)
            if callable(value) and not inspect.isclass(value):
                names.append(key)
    return tuple(names)
