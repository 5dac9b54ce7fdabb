"""The table of settings: every source, every kind of value, every kind of mistake."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

import pytest

from ppserver.config import GROUPS, Config, Setting, check, convert, suggest, table
from ppserver.errors import ConfigError


def test_defaults_are_the_documented_ones() -> None:
    config = Config("m:app")
    assert (config.host, config.port) == ("127.0.0.1", 8000)
    assert config.timeout_keep_alive == 75.0
    assert config.timeout_graceful_shutdown == 30.0
    assert config.timeout_request_header == 10.0
    assert config.cores == 1
    assert config.access_log is True


@pytest.mark.parametrize("option", table().values(), ids=lambda option: option.name)
def test_every_setting_is_complete(option: object) -> None:
    assert isinstance(option, tuple)
    setting = option.setting
    assert isinstance(setting, Setting)
    assert setting.help
    assert not setting.help.endswith(".")
    assert setting.metavar or setting.choices or option.kind is bool
    if option.name != "app":
        assert check(option.name, option.default) == option.default


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("port", "80", 80),
        ("timeout_write", "2.5", 2.5),
        ("access_log", "off", False),
        ("access_log", "YES", True),
        ("cores", "all", "all"),
        ("cores", "3", 3),
        ("umask", "027", 0o027),
        ("bind", "a:1, b:2", ("a:1", "b:2")),
        ("header", "A: 1,2\nB: 3", ("A: 1,2", "B: 3")),
        ("host", "::1", "::1"),
    ],
)
def test_text_becomes_a_value(name: str, text: str, value: object) -> None:
    assert convert(name, text) == value


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("port", "http"),
        ("port", "8_000"),
        ("port", "1e3"),
        ("timeout_write", "soon"),
        ("access_log", "maybe"),
        ("cores", "many"),
        ("cores", "-1"),
        ("umask", "999"),
    ],
)
def test_wrong_text_names_setting_and_value(name: str, text: str) -> None:
    with pytest.raises(ConfigError, match=name) as caught:
        convert(name, text)
    assert repr(text) in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    "wrong",
    [
        {"port": 65536},
        {"port": -1},
        {"port": "x"},
        {"port": True},
        {"port": 1.5},
        {"host": None},
        {"host": "a\0b"},
        {"timeout_write": float("nan")},
        {"timeout_write": -0.5},
        {"timeout_write": float("inf")},
        {"cores": 0},
        {"cores": 1.0},
        {"access_log": 1},
        {"bind": [1]},
        {"interface": "asgi2"},
        {"loop": "uvlop"},
        {"contexts": "fibers"},
        {"uds": "/a", "fd": 3},
        {"uds": "/a", "bind": ("b:1",)},
        {"limit_request_line": 9000, "limit_request_head": 8000},
        {"root_path": "api"},
        {"root_path": "/api/"},
        {"header": ("nonsense",)},
        {"header": ("Bad Name: x",)},
        {"header": ("A: x\r\nB: y",)},
        {"header": ("A: \x00",)},
        {"header": ("Content-Length: 5",)},
        {"forwarded_allow_ips": ("proxy.example",), "proxy_headers": True},
        {"forwarded_allow_ips": ("proxy.example",)},
    ],
    ids=repr,
)
def test_wrong_values_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError) as caught:
        Config("m:app", **wrong)  # type: ignore[arg-type]
    assert next(iter(wrong)) in str(caught.value) or "cannot be used" in str(caught.value)


def test_a_wrong_choice_gets_a_suggestion() -> None:
    with pytest.raises(ConfigError) as caught:
        Config("m:app", loop="uvlop")
    assert caught.value.hint == "did you mean uvloop?"


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("prot", "did you mean port?"),
        ("worker", "did you mean workers?"),
        ("ssl_keyfile", "TLS is not there yet: put a proxy in front that speaks it"),
        ("zzz", ""),
    ],
)
def test_an_unknown_name_gets_a_suggestion(name: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Config("m:app", **{name: 1})  # type: ignore[arg-type]
    assert str(caught.value) == f"{name}: there is no such setting"
    assert caught.value.hint == hint


def test_another_name_of_a_setting() -> None:
    assert Config("m:app", workers=3).cores == 3  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="by another name"):
        Config("m:app", workers=3, cores=3)  # type: ignore[arg-type]
    assert dataclasses.replace(Config("m:app", cores=3), port=1).cores == 3


def test_groups_have_every_setting_in_the_order_of_the_reference() -> None:
    titles = list(dict.fromkeys(option.setting.group for option in table().values()))
    assert titles == [group.TITLE for group in GROUPS]


def test_values_are_normalised() -> None:
    given: dict[str, Any] = {"timeout_write": 5, "bind": ["a:1"], "cores": "4"}
    config = Config("m:app", **given)
    assert config.timeout_write == 5.0
    assert isinstance(config.timeout_write, float)
    assert config.bind == ("a:1",)
    assert config.cores == 4
    paths = Config("m:app", uds=pathlib.Path("/tmp/x"))  # type: ignore[arg-type]
    assert paths.uds == "/tmp/x"


def test_config_is_frozen() -> None:
    with pytest.raises(AttributeError):
        Config("m:app").port = 1  # type: ignore[misc]


def test_response_headers_are_bytes() -> None:
    config = Config("m:app", header=("X-A: b c", "X-Empty:"))
    assert config.response_headers == [(b"X-A", b"b c"), (b"X-Empty", b"")]


def test_suggest_knows_when_to_be_silent() -> None:
    assert suggest("prot", ["port", "host"]) == "did you mean port?"
    assert suggest("zzz", ["port", "host"]) == ""
