"""What a Core is made with: settings by name, with the bounds of ppserver.config."""

from __future__ import annotations

from typing import Any

import pytest

from ppserver._native import CORE_SETTINGS, Board, Core
from ppserver.config import table


def test_bounds_are_those_of_the_configuration() -> None:
    settings = {option.name: option for option in table().values()}
    for name, (low, high) in CORE_SETTINGS.items():
        option = settings[name]
        if option.kind is not bool:
            assert (option.setting.minimum, option.setting.maximum) == (low, high), name


@pytest.mark.parametrize("name", CORE_SETTINGS)
def test_bounds_hold(name: str) -> None:
    low, high = CORE_SETTINGS[name]
    for value in (low, high):
        Core(**{name: value}).close()  # type: ignore[arg-type]
    if high == 1:
        return
    for wrong in (low - 1, high + 1, 2**64, 10**400):
        with pytest.raises(ValueError, match=f"^{name}: expected {low} to {high}"):
            Core(**{name: wrong})  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=f"^{name}: expected .*, got str"):
        Core(**{name: "1"})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("settings", "kind", "message"),
    [
        ({"timeout_write": float("nan")}, ValueError, "timeout_write: expected 0 to 86400 seconds"),
        ({"timeout_write": float("inf")}, ValueError, "timeout_write: expected 0 to 86400 seconds"),
        ({"limit_pipeline": 1.0}, TypeError, "limit_pipeline: expected an int, got float"),
        ({"headers": 1}, TypeError, "not iterable"),
        ({"headers": [(b"a", "b")]}, TypeError, "headers: expected"),
        ({"headers": [b"ab"]}, TypeError, "headers: expected"),
        ({"access_log_fd": -2}, ValueError, "access_log_fd: expected"),
        ({"access_log_fd": 2**31}, ValueError, "access_log_fd: expected"),
        ({"access_log_fd": None}, TypeError, "access_log_fd: expected an int, got NoneType"),
        ({"access_log_prefix": "text"}, TypeError, "access_log_prefix: expected bytes, got str"),
        ({"access_log_prefix": b"a\0b"}, ValueError, "null byte"),
        ({"board": 1}, TypeError, "board: expected a Board or None, got int"),
        ({"slot": -1}, IndexError, "no such slot"),
        ({"slot": "1"}, TypeError, "slot: expected an int, got str"),
        ({"limit_pipelines": 1}, TypeError, "no setting 'limit_pipelines'"),
    ],
)
def test_errors_name_the_setting(
    settings: dict[str, Any], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        Core(**settings)


def test_a_slot_is_one_of_the_board() -> None:
    board = Board(2)
    Core(board=board, slot=1).close()
    with pytest.raises(IndexError):
        Core(board=board, slot=2)
    Core(board=None, slot=2).close()


def test_settings_go_by_name_and_once() -> None:
    with pytest.raises(TypeError, match="by name only"):
        Core(8192)  # type: ignore[misc]
    core = Core()
    with pytest.raises(RuntimeError, match="twice"):
        core.__init__()  # type: ignore[misc]
    core.close()
    again: list[Core] = []

    class Headers:
        def __iter__(self) -> Any:
            again[0].__init__()  # type: ignore[misc]
            return iter(())

    again.append(Core.__new__(Core))
    with pytest.raises(RuntimeError, match="twice"):
        again[0].__init__(headers=Headers())  # type: ignore[misc]
    again[0].close()
