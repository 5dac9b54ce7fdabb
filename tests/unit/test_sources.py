"""Where settings come from: environment, files, platforms; and back into a file."""

from __future__ import annotations

import os
import pathlib
import tomllib
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st

from ppserver.config import Config, Option, is_octal, table
from ppserver.config.sources import from_environment, from_file, gather, read_env_file, to_toml
from ppserver.errors import ConfigError


def test_environment() -> None:
    found = from_environment({"PPSERVER_PORT": "9", "PPSERVER_CONFIG": "x", "HOME": "/"})
    assert found == {"port": 9}


def test_unknown_environment_variable_is_an_error_with_a_hint() -> None:
    with pytest.raises(ConfigError, match="PPSERVER_PROT") as caught:
        from_environment({"PPSERVER_PROT": "9"})
    assert caught.value.hint == "did you mean PPSERVER_PORT?"


def test_the_prefix_alone_makes_no_variable_similar() -> None:
    with pytest.raises(ConfigError, match="PPSERVER_QQQ") as caught:
        from_environment({"PPSERVER_QQQ": "9"})
    assert "did you mean" not in caught.value.hint


def test_file(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "server.toml"
    path.write_text('app = "m:app"\nport = 9\naccess-log = false\nbind = ["a:1"]\n')
    assert from_file(str(path)) == {
        "app": "m:app",
        "port": 9,
        "access_log": False,
        "bind": ("a:1",),
    }


def test_pyproject_file(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "pyproject.toml"
    path.write_text('[project]\nname = "x"\n[tool.ppserver]\ncores = "all"\n')
    assert from_file(str(path)) == {"cores": "all"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("prt = 3", "prt"),
        ("port = 'x'", "whole number"),
        ("port = ", "not valid TOML"),
        ("[port]\nx = 1", "port"),
    ],
)
def test_wrong_file(tmp_path: pathlib.Path, text: str, message: str) -> None:
    path = tmp_path / "server.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        from_file(str(path))


def test_missing_file() -> None:
    with pytest.raises(ConfigError, match="No such file"):
        from_file("/nowhere/at/all.toml")


def test_env_file(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "env"
    path.write_text(
        "# comment\n\nA=1\nexport B = two words # comment\nC='x # y'\nD=\"q\"\nE=\nSET=new\n"
    )
    found = read_env_file(str(path), {"SET": "old"})
    assert found == {"A": "1", "B": "two words", "C": "x # y", "D": "q", "E": ""}


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("V=abc#123", "abc#123"),
        ("V=abc #123", "abc"),
        ("V='abc #123'", "abc #123"),
        ('V="a\\nb" # two lines', "a\nb"),
        ("V='one\ntwo'", "one\ntwo"),
        ('V={"a": [1, "x y"], "b": "#"}', '{"a": [1, "x y"], "b": "#"}'),
        ("export  V = $ecret!", "$ecret!"),
        ("W=1\nV=${W}2${SET}${NONE:-3}", "123"),
        ("V=1\r\n", "1"),
        ("V=postgres://u:p%40ss@h/db?x=1&y=2", "postgres://u:p%40ss@h/db?x=1&y=2"),
        ("V=a'b\"c", "a'b\"c"),
    ],
)
def test_env_file_value(tmp_path: pathlib.Path, line: str, value: str) -> None:
    path = tmp_path / "env"
    path.write_text(line + "\n")
    assert read_env_file(str(path), {})["V"] == value


def test_a_bare_name_in_an_env_file_keeps_what_the_environment_has(
    tmp_path: pathlib.Path,
) -> None:
    path = tmp_path / "env"
    path.write_text("HOME\nNOT_SET_ANYWHERE\n")
    assert read_env_file(str(path), {"HOME": "/"}) == {}


@pytest.mark.parametrize("line", ["non sense", "1A=2", "A='x", "=x"])
def test_wrong_env_file(tmp_path: pathlib.Path, line: str) -> None:
    path = tmp_path / "env"
    path.write_text(f"OK=1\n{line}\n")
    with pytest.raises(ConfigError, match="line 2"):
        read_env_file(str(path), {})


def test_unknown_variable_of_an_env_file_names_the_file(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "env"
    path.write_text("PPSERVER_PROT=9\n")
    with pytest.raises(ConfigError, match=r"PPSERVER_PROT of .*env names no setting"):
        gather({"env_file": str(path)}, {}, None)


def test_wrong_value_names_the_variable() -> None:
    with pytest.raises(ConfigError, match=r"^PPSERVER_PORT: 'x' is not a whole number$"):
        from_environment({"PPSERVER_PORT": "x"})


@pytest.mark.parametrize(
    ("flags", "environ", "text", "message"),
    [
        ({"port": 70000}, {}, "", "--port: 70000 is too large"),
        ({}, {"PPSERVER_PORT": "70000"}, "", "PPSERVER_PORT: 70000 is too large"),
        ({}, {}, "port = 70000", "{path}: port: 70000 is too large"),
        ({}, {}, "access-log = 3", "{path}: access-log: 3 is not true or false"),
        ({}, {}, "prot = 3", "{path}: prot: there is no such setting"),
        ({}, {"PPSERVER_WORKERS": "none"}, "", "PPSERVER_WORKERS: 'none' is neither"),
        ({}, {"WEB_CONCURRENCY": "0"}, "", "WEB_CONCURRENCY: 0 is too small"),
        # Settings that contradict one another, each from somewhere else.
        (
            {"limit_request_head": 200},
            {"PPSERVER_LIMIT_REQUEST_LINE": "300"},
            "",
            "PPSERVER_LIMIT_REQUEST_LINE: 300 is larger than limit_request_head (200)",
        ),
        ({"root_path": "api"}, {}, "", "--root-path: 'api' must begin with a slash"),
        ({}, {}, "header = ['x']", "{path}: header: 'x' is not of the form"),
    ],
)
def test_an_error_begins_with_where_the_value_came_from(
    tmp_path: pathlib.Path,
    flags: dict[str, object],
    environ: dict[str, str],
    text: str,
    message: str,
) -> None:
    path = tmp_path / "ppserver.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        gather({"app": "m:app", **flags}, environ, str(path))
    assert str(caught.value).startswith(message.format(path=path))


def test_of_an_environment_file_the_file_is_named_too(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "env"
    path.write_text("PPSERVER_PORT=x\n")
    with pytest.raises(ConfigError, match=f"^PPSERVER_PORT of {path}: 'x' is not"):
        gather({"env_file": str(path)}, {}, None)
    path.write_text("PPSERVER_ROOT_PATH=api\n")
    with pytest.raises(ConfigError, match=f"^PPSERVER_ROOT_PATH of {path}: 'api' must"):
        gather({"env_file": str(path)}, {}, None)


def test_workers_is_cores_in_every_source(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "ppserver.toml"
    path.write_text("workers = 2\n")
    assert gather({}, {}, str(path))[0].cores == 2
    assert gather({}, {"PPSERVER_WORKERS": "3"}, str(path))[0].cores == 3
    assert gather({"cores": 4}, {"PPSERVER_WORKERS": "3"}, str(path))[0].cores == 4
    assert "cores" in gather({}, {"PPSERVER_WORKERS": "3"}, None)[1]


def test_both_names_of_a_setting_contradict_each_other(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "ppserver.toml"
    path.write_text("workers = 2\ncores = 2\n")
    with pytest.raises(ConfigError, match="this is workers by another name, which is given, too"):
        from_file(str(path))
    with pytest.raises(ConfigError, match=r"^PPSERVER_CORES: this is PPSERVER_WORKERS by another"):
        from_environment({"PPSERVER_WORKERS": "2", "PPSERVER_CORES": "2"})


SERVICE = {
    "PPSERVER_SERVICE_HOST": "10.0.0.1",
    "PPSERVER_SERVICE_PORT": "80",
    "PPSERVER_SERVICE_PORT_HTTP": "80",
    "PPSERVER_PORT": "tcp://10.0.0.1:80",
    "PPSERVER_PORT_80_TCP": "tcp://10.0.0.1:80",
    "PPSERVER_PORT_80_TCP_PROTO": "tcp",
    "PPSERVER_PORT_80_TCP_PORT": "80",
    "PPSERVER_PORT_80_TCP_ADDR": "10.0.0.1",
}


def test_variables_of_kubernetes_services_are_passed_over() -> None:
    other = {name.replace("PPSERVER_", "PPSERVER_WEB_", 1): SERVICE[name] for name in SERVICE}
    assert from_environment({**SERVICE, **other, "PPSERVER_BACKLOG": "7"}) == {"backlog": 7}


def test_variables_of_container_links_are_passed_over() -> None:
    link = {"PPSERVER_NAME": "/web/ppserver", "PPSERVER_ENV_LANG": "C"}
    assert from_environment(link) == {}
    with pytest.raises(ConfigError, match="PPSERVER_ENV_LANG"):
        from_environment({"PPSERVER_ENV_LANG": "C"})


@pytest.mark.parametrize(
    ("environ", "flags", "expected"),
    [
        ({"PORT": "5000"}, {}, {"host": "0.0.0.0", "port": 5000}),
        ({"PORT": "5000"}, {"port": 9}, {"host": "127.0.0.1", "port": 9}),
        ({"PORT": "5000"}, {"host": "::1"}, {"host": "::1", "port": 5000}),
        ({"PORT": "5000", "PPSERVER_BIND": "a:1"}, {}, {"bind": ("a:1",), "port": 8000}),
        ({"PORT": ""}, {}, {"host": "127.0.0.1", "port": 8000}),
        ({"WEB_CONCURRENCY": "3"}, {}, {"cores": 3}),
        ({"WEB_CONCURRENCY": "3"}, {"cores": 2}, {"cores": 2}),
        ({"WEB_CONCURRENCY": "3", "PPSERVER_CORES": "4"}, {}, {"cores": 4}),
        (
            {"FORWARDED_ALLOW_IPS": "10.0.0.0/8,unix"},
            {},
            {"forwarded_allow_ips": ("10.0.0.0/8", "unix")},
        ),
    ],
)
def test_platforms_variables_replace_defaults(
    environ: dict[str, str], flags: dict[str, object], expected: dict[str, object]
) -> None:
    config, _ = gather({"app": "m:app", **flags}, environ, None)
    assert {name: getattr(config, name) for name in expected} == expected


def test_wrong_platform_variable_is_named() -> None:
    with pytest.raises(ConfigError, match=r"^WEB_CONCURRENCY: 'many' is neither"):
        gather({"app": "m:app"}, {"WEB_CONCURRENCY": "many"}, None)


@pytest.mark.parametrize(
    ("written", "value"), [("0o22", 0o22), ('"022"', 0o22), ('"22"', 0o22), ("'0o22'", 0o22)]
)
def test_umask_in_a_file(tmp_path: pathlib.Path, written: str, value: int) -> None:
    path = tmp_path / "server.toml"
    path.write_text(f"port = 1\numask = {written}\n")
    assert from_file(str(path))["umask"] == value


def test_a_decimal_umask_is_refused(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "server.toml"
    path.write_text("umask = 22\n")
    with pytest.raises(ConfigError, match="umask = 22 is a decimal number") as caught:
        from_file(str(path))
    assert "0o22" in caught.value.hint


TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8)
# Text that is checked further than for being text.
CHECKED = {
    "env_file": st.just(os.devnull),
    "root_path": st.sampled_from(["", "/a", "/a b/é"]),
    "header": st.lists(st.sampled_from(["A: b", 'X-Y: "q"'])).map(tuple),
    "forwarded_allow_ips": st.lists(st.sampled_from(["*", "unix", "10.0.0.0/8"])).map(tuple),
    "bind": st.lists(TEXT.filter(str.strip)).map(tuple),
    "cores": st.one_of(st.just("all"), st.integers(1, 1024)),
}


def values_of(option: Option) -> st.SearchStrategy[Any]:
    setting = option.setting
    least, most = setting.minimum, setting.maximum
    if option.name in CHECKED:
        found = CHECKED[option.name]
    elif setting.choices:
        found = st.sampled_from(setting.choices)
    elif option.kind is bool:
        found = st.booleans()
    elif option.kind is int:
        found = st.integers(int(least or 0), int(most or 2**31))
    elif option.kind is float:
        found = st.floats(least, most)
    elif option.kind is tuple:
        found = st.lists(TEXT).map(tuple)
    else:
        found = TEXT
    return st.none() | found if option.optional else found


@hypothesis.settings(deadline=None, max_examples=60)
@hypothesis.given(st.data())
def test_printed_configuration_gives_the_same_configuration(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    chosen = data.draw(st.sets(st.sampled_from(sorted(table()))))
    values = {name: data.draw(values_of(table()[name]), label=name) for name in chosen}
    try:
        config = Config(**values)
    except ConfigError:
        hypothesis.reject()
    text = to_toml(config, dict.fromkeys(values, "flag"))
    path = tmp_path_factory.mktemp("round") / "printed.toml"
    path.write_text(text, newline="")
    again, _ = gather({}, {}, str(path))
    assert again == config


def test_text_that_toml_cannot_hold_is_refused() -> None:
    with pytest.raises(ConfigError, match="uds"):
        to_toml(Config("m:app", uds="/a\udcff"), {})


def test_octal_settings_print_in_octal() -> None:
    assert tomllib.loads(to_toml(Config("m:app", umask=0o027), {}))["umask"] == 0o027
    assert is_octal("umask")
