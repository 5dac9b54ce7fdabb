"""Finding and recognising applications, and saying what is wrong with those that are none."""

from __future__ import annotations

import functools
import pathlib
import re
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ppserver.app.loader import Target, detect, load, parse_target, recognise
from ppserver.config import Config
from ppserver.errors import ConfigError, LoadError


async def asgi(scope: Any, receive: Any, send: Any) -> None: ...


def wsgi(environ: Any, start_response: Any) -> list[bytes]:
    return []


class ASGIObject:
    async def __call__(self, scope: Any, receive: Any, send: Any) -> None: ...


class WSGIObject:
    def __call__(self, environ: Any, start_response: Any) -> list[bytes]:
        return []


class ASGI2:
    def __init__(self, scope: Any) -> None: ...

    async def __call__(self, receive: Any, send: Any) -> None: ...


class WSGIClass:
    def __init__(self, environ: Any, start_response: Any) -> None: ...

    def __iter__(self) -> Iterator[bytes]:
        return iter(())


def asgi2(scope: Any) -> Any: ...


def any_arguments(*args: Any) -> Any: ...


async def any_arguments_async(*args: Any) -> Any: ...


def with_more(environ: Any, start_response: Any, extra: int = 0) -> Any: ...


def with_option(scope: Any, receive: Any, send: Any, *, key: int = 0) -> Any: ...


def wrapped(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def inner(*args: Any) -> Any:
        return function(*args)

    return inner


@pytest.mark.parametrize(
    ("app", "kind"),
    [
        (asgi, "asgi"),
        (wsgi, "wsgi"),
        (ASGIObject(), "asgi"),
        (WSGIObject(), "wsgi"),
        (ASGIObject().__call__, "asgi"),
        (WSGIObject().__call__, "wsgi"),
        (functools.partial(asgi), "asgi"),
        (functools.partial(functools.partial(wsgi)), "wsgi"),
        (functools.partial(with_more, extra=3), "wsgi"),
        (functools.partial(ASGIObject()), "asgi"),
        (lambda scope, receive, send: None, "asgi"),
        (lambda environ, start_response: None, "wsgi"),
        (with_more, "wsgi"),
        (with_option, "asgi"),
        (wrapped(wsgi), "wsgi"),
        (wrapped(asgi), "asgi"),
        (any_arguments_async, "asgi"),
        (any_arguments, ""),
        (ASGI2, "asgi2"),
        (asgi2, "asgi2"),
        (WSGIClass, "wsgi"),
        (ASGIObject, "class"),
        (WSGIObject, "class"),
        (print, ""),
    ],
    ids=lambda given: re.sub(" at 0x[0-9a-f]+", "", repr(given)),
)
def test_detect(app: Any, kind: str) -> None:
    assert detect(app) == kind


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("m", Target("m", "", False)),
        ("a.b:c", Target("a.b", "c", False)),
        ("a:b.c.d", Target("a", "b.c.d", False)),
        ("a:make()", Target("a", "make", True)),
        ("dir/my-app.py", Target("dir/my-app.py", "", False)),
        ("dir/app.py:x", Target("dir/app.py", "x", False)),
    ],
)
def test_parse_target(text: str, target: Target) -> None:
    assert parse_target(text) == target


@pytest.mark.parametrize("text", ["", ":", "a:", ":b", "a:b:c", "a:b(1)", "a b", "a..b", "1a:b"])
def test_malformed_target(text: str) -> None:
    with pytest.raises(ConfigError, match="form module:attribute"):
        parse_target(text)


Write = Callable[..., None]


@pytest.fixture
def project(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[pathlib.Path]:
    """An empty directory to import from; what is imported from it is forgotten again."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        file = getattr(sys.modules[name], "__file__", None)
        if file and file.startswith(str(tmp_path)):
            del sys.modules[name]


def loading(project: pathlib.Path, app: str, **settings: Any) -> Any:
    return load(Config(app, app_dir=str(project), **settings))


APP = "async def app(scope, receive, send): ...\n"


@pytest.mark.parametrize("name", ["parallel.py", "parallel/__init__.py"])
def test_a_module_called_parallel_of_the_users_own_makes_no_program(
    project: pathlib.Path, name: str
) -> None:
    own = project / name
    own.parent.mkdir(exist_ok=True)
    own.write_text("")
    (project / "main.py").write_text("import parallel\n" + APP)
    assert recognise(Config("main.py", app_dir=str(project))).interface == "auto"
    own.unlink()
    assert recognise(Config("main.py", app_dir=str(project))).interface == "parallel"


def test_module_and_attribute(project: pathlib.Path) -> None:
    (project / "site_one.py").write_text(APP + "class box: inner = app\n")
    assert loading(project, "site_one:app").interface == "asgi"
    assert loading(project, "site_one:box.inner").interface == "asgi"


@pytest.mark.parametrize("name", ["app", "application"])
def test_default_attributes(project: pathlib.Path, name: str) -> None:
    (project / f"site_{name}.py").write_text(f"def {name}(environ, start_response): ...\n")
    loaded = loading(project, f"site_{name}")
    assert loaded.interface == "wsgi"
    assert loaded.call.__name__ == name


def test_file(project: pathlib.Path) -> None:
    (project / "pkg").mkdir()
    (project / "pkg" / "__init__.py").write_text("")
    (project / "pkg" / "web_main.py").write_text("from . import __name__ as n\n" + APP)
    assert loading(project, "pkg/web_main.py").interface == "asgi"
    assert "pkg.web_main" in sys.modules
    with pytest.raises(LoadError, match="no file"):
        loading(project, "pkg/other.py")


@pytest.mark.parametrize(("app", "factory"), [("site_f:make()", False), ("site_f:make", True)])
def test_factory(project: pathlib.Path, app: str, factory: bool) -> None:
    (project / "site_f.py").write_text(APP + "def make(): return app\n")
    assert loading(project, app, factory=factory).interface == "asgi"


def test_application_object() -> None:
    loaded = load(Config(asgi))
    assert loaded.call is asgi
    assert loaded.interface == "asgi"


def test_interface_by_hand() -> None:
    assert load(Config(any_arguments, interface="wsgi")).interface == "wsgi"


def test_env_file_reaches_the_application(
    project: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SITE_ENV_WORD", "set")
    monkeypatch.delenv("SITE_ENV_WORD")
    (project / "env").write_text("SITE_ENV_WORD=hello\n")
    (project / "site_env.py").write_text(
        "import os\nassert os.environ['SITE_ENV_WORD'] == 'hello'\n" + APP
    )
    assert loading(project, "site_env", env_file=str(project / "env")).interface == "asgi"


@pytest.mark.parametrize(
    ("text", "app", "message", "hint"),
    [
        ("", "site_wrong:app", "no module 'site_wrong'", "did you mean"),
        ("", "zzz:app", "no module 'zzz'", "--app-dir"),
        (APP, "site_x:ap", "no attribute 'ap'", "did you mean app?"),
        ("async def serve(scope, receive, send): ...", "site_x", "neither", "site_x:serve"),
        (APP, "site_x:app.inner", "no attribute 'inner'", ""),
        ("app = 3", "site_x:app", "not an application but a int", "callable"),
        ("class app:\n def __call__(self, e, s): ...", "site_x:app", "is a class", "--factory"),
        ("def app(): ...", "site_x:app", "takes no arguments", "--factory"),
        ("def app(scope): ...", "site_x:app", "ASGI 2", "asgiref"),
        ("def app(*args): ...", "site_x:app", "cannot tell", "--interface"),
        ("def make(): return 3", "site_x:make()", "not an application", ""),
        ("async def make(): ...", "site_x:make()", "async function", "lifespan"),
        ("def make(x): ...", "site_x:make()", "factory failed: TypeError", "without arguments"),
        ("make = 3", "site_x:make()", "not callable", ""),
        ("raise SystemExit(4)", "site_x:app", "SystemExit: 4", ""),
        ("import nosuchmodule_", "site_x:app", "nosuchmodule_", "is nosuchmodule_ installed"),
    ],
)
def test_errors_of_use(project: pathlib.Path, text: str, app: str, message: str, hint: str) -> None:
    (project / "site_x.py").write_text(text)
    with pytest.raises(LoadError) as caught:
        loading(project, app)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert hint in caught.value.hint
    assert caught.value.exit_code == 3


def test_failing_import_shows_the_applications_frames_only(project: pathlib.Path) -> None:
    (project / "site_bad.py").write_text("import site_worse\n")
    (project / "site_worse.py").write_text("def f():\n    1 / 0\n\nf()\n")
    with pytest.raises(LoadError) as caught:
        loading(project, "site_bad:app")
    lines = caught.value.trace.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert "site_bad.py" in lines[1]
    assert lines[-1].startswith("ZeroDivisionError")
    assert "importlib" not in caught.value.trace
    assert "loader.py" not in caught.value.trace


def test_syntax_error_shows_the_place(project: pathlib.Path) -> None:
    (project / "site_syntax.py").write_text("x = = 1\n")
    with pytest.raises(LoadError, match="SyntaxError") as caught:
        loading(project, "site_syntax:app")
    assert "x = = 1" in caught.value.trace
    assert "loader.py" not in caught.value.trace


def test_failing_factory_shows_its_frames(project: pathlib.Path) -> None:
    (project / "site_fac.py").write_text("def make():\n    raise KeyError('x')\n")
    with pytest.raises(LoadError, match="factory failed: KeyError") as caught:
        loading(project, "site_fac:make()")
    assert "in make" in caught.value.trace
    assert "loader.py" not in caught.value.trace


def test_app_dir_must_exist(project: pathlib.Path) -> None:
    with pytest.raises(ConfigError, match="app_dir"):
        loading(project / "nowhere", "x:app")
