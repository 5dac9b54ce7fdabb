"""Find, import and recognise the application.

``module:attr[.attr]``, ``module:factory()``, ``module`` (then ``app`` or ``application``), or a
``.py`` file in place of the module. Whatever is wrong ends in one :class:`LoadError` that says
what and what to do; an import that fails shows the traceback from the application's frame on.
"""

from __future__ import annotations

import builtins
import dataclasses
import functools
import importlib
import inspect
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from ppserver.app import patched, programs
from ppserver.app.programs import Program
from ppserver.app.tracebacks import application_trace
from ppserver.config import Config, suggest
from ppserver.config.addresses import Address, addresses, parse_address
from ppserver.config.sources import read_env_file
from ppserver.config.targets import Target, parse_function, parse_target
from ppserver.errors import ConfigError, LoadError
from ppserver.types import Interface

DEFAULT_ATTRIBUTES = ("app", "application")


@dataclasses.dataclass(frozen=True, slots=True)
class Application:
    """A loaded application and how to talk to it."""

    call: Any
    interface: Interface
    name: str
    make: Callable[[], Callable[..., Any]] | None = None
    addresses: Sequence[Sequence[Address]] = ()  # what protocols of the parallel API listen on

    def another(self) -> Application:
        """An application for one more context of this process: a new instance if a factory makes
        it, else the same object. Raises LoadError if the factory fails."""
        return self if self.make is None else dataclasses.replace(self, call=self.make())

    @property
    def program(self) -> Program | None:
        """The application as a program of the parallel API; None if it is none."""
        if self.interface != "parallel":
            return None
        program: Program = self.call
        return program


def find(text: str, app_dir: str, setting: str) -> Any:
    """What ``module:function`` names. LoadError if there is no such thing, or ConfigError."""
    target = parse_function(text, setting)
    try:
        return _resolve(target, _import(target, app_dir))
    except LoadError as error:
        raise LoadError(f"{setting}: {error}", hint=error.hint, trace=error.trace) from error


def load(config: Config) -> Application:
    """The application ``config`` names, imported, made by its factory if it has one, recognised.

    Puts ``app_dir`` at the front of ``sys.path`` and the variables of ``env_file`` into the
    environment. Raises LoadError, or ConfigError for a malformed ``app``.
    """
    if config.env_file is not None:
        os.environ.update(read_env_file(config.env_file, os.environ))
    config = recognise(config)
    application = _load_program(config) if config.interface == "parallel" else _load(config)
    patched.refuse(application.name)
    return application


def _load(config: Config) -> Application:
    """An ASGI or WSGI application."""
    if isinstance(config.app, str):
        if not config.app:
            raise ConfigError("no application given", hint="ppserver module:app")
        target = parse_target(config.app)
        name = config.app
        found = _resolve(target, _import(target, config.app_dir))
        factory = config.factory or target.call
    else:
        found, factory = config.app, config.factory
        name = getattr(found, "__qualname__", type(found).__qualname__)
    maker = found if factory else None
    if factory:
        found = _make(found, name)
    if isinstance(found, ModuleType) or not callable(found):
        raise LoadError(
            f"{name} is not an application but a {type(found).__name__}",
            hint="an application is a callable: ASGI (scope, receive, send) "
            "or WSGI (environ, start_response)",
        )
    interface = _interface(found, name, config.interface)
    make = None if maker is None else lambda: _make(maker, name)
    return Application(found, interface, name, make)


def recognise(config: Config) -> Config:
    """``config`` with the interface of a program of the parallel API, if it names one."""
    if config.interface == "auto" and programs.is_program(config):
        return dataclasses.replace(config, interface="parallel")
    return config


def _load_program(config: Config) -> Application:
    """A program of the parallel API: run as the main program is, for what it registers."""
    if isinstance(config.app, str):
        name = config.app
        target = parse_target(name)
        filled = programs.begin(config)
        if target.is_file and not target.attr:
            _run_program(Path(config.app_dir, target.module))
        else:
            _import(target, config.app_dir)
        program = filled()
    else:
        program, name = config.app, "the program"
    if not program.addresses:
        raise LoadError(f"{name} registers nothing", hint=program.usage)
    found = [[parse_address(text) for text in one] for one in program.addresses]
    if config.bind or config.uds is not None or config.fd is not None:
        servers = [tag for tag, one in enumerate(found) if one]
        if len(servers) != 1:
            raise ConfigError(
                f"{name} has {len(servers)} servers with addresses of their own",
                hint="another address can only be given to a program with one server",
                setting="bind",
            )
        found[servers[0]] = addresses(config)
    schemes = map(program.scheme, range(len(found)))
    where = [
        [dataclasses.replace(address, scheme=scheme) for address in one]
        for one, scheme in zip(found, schemes, strict=True)
    ]
    return Application(program, "parallel", name, addresses=where)


def _run_program(path: Path) -> None:
    """Run a file as ``__main__``, which it stays, so that what it defines can be pickled."""
    if not path.is_file():
        raise LoadError(f"there is no file {path}")
    directory = str(path.resolve().parent)
    if sys.path[:1] != [directory]:
        sys.path.insert(0, directory)
    module = ModuleType("__main__")
    module.__file__ = str(path)
    vars(module)["__builtins__"] = builtins
    sys.modules["__main__"] = module
    try:
        exec(compile(path.read_bytes(), str(path), "exec"), module.__dict__)
    except (Exception, SystemExit) as error:
        raise LoadError(
            f"running {path} failed: {type(error).__name__}: {error}",
            trace=application_trace(error),
        ) from error


def detect(app: Callable[..., Any]) -> str:
    """What ``app`` looks like: ``"asgi"``, ``"wsgi"``, ``"asgi2"``, ``"class"`` or ``""``."""
    inner = app
    while isinstance(inner, functools.partial):
        inner = inner.func
    method = getattr(type(inner), "__call__", None)  # noqa: B004
    if inspect.iscoroutinefunction(inner) or inspect.iscoroutinefunction(method):
        return "asgi"
    least, most = _positional(app)
    if inspect.isclass(inner):
        if least <= 1 <= most and _is_method_of_arity(inner, 2):
            return "asgi2"
        if least <= 2 <= most and hasattr(inner, "__iter__"):
            return "wsgi"
        return "class"
    by_count = {3: "asgi", 2: "wsgi"}
    return by_count.get(least) or by_count.get(most) or ("asgi2" if least == 1 else "")


def _import(target: Target, app_dir: str) -> ModuleType:
    """Import the target's module with ``app_dir`` in front of the path."""
    directory, module = os.path.abspath(app_dir), target.module
    if not os.path.isdir(directory):
        raise ConfigError(f"{app_dir!r} is not a directory", setting="app_dir")
    if target.is_file:
        directory, module = _module_of_file(Path(directory, module))
    if sys.path[:1] != [directory]:
        sys.path.insert(0, directory)
    importlib.invalidate_caches()
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if module == missing or module.startswith(missing + "."):
            raise LoadError(
                f"there is no module {missing!r}", hint=_missing_module_hint(missing, directory)
            ) from None
        raise LoadError(
            f"importing {module} failed: {error}",
            hint=f"is {missing.partition('.')[0]} installed in {sys.prefix}?",
            trace=application_trace(error),
        ) from error
    except (Exception, SystemExit) as error:
        raise LoadError(
            f"importing {module} failed: {type(error).__name__}: {error}",
            trace=application_trace(error),
        ) from error


def _module_of_file(path: Path) -> tuple[str, str]:
    """(directory for sys.path, dotted module name) of a ``.py`` file."""
    path = path.resolve()
    if not path.is_file():
        raise LoadError(f"there is no file {path}")
    names = [] if path.name == "__init__.py" else [path.stem]
    directory = path.parent
    while (directory / "__init__.py").is_file():
        names.insert(0, directory.name)
        directory = directory.parent
    if not all(name.isidentifier() for name in names):
        raise LoadError(f"{path} cannot be imported: its name is no Python identifier")
    return str(directory), ".".join(names)


def _missing_module_hint(missing: str, directory: str) -> str:
    parent = Path(directory, *missing.split(".")[:-1])
    try:
        entries = [
            path.stem
            for path in parent.iterdir()
            if path.suffix == ".py" or (path.is_dir() and path.name.isidentifier())
        ]
    except OSError:
        entries = []
    return suggest(missing.rpartition(".")[2], entries) or (
        f"looked in {directory} and the installed packages; --app-dir sets another directory"
    )


def _resolve(target: Target, module: ModuleType) -> Any:
    """The object the target names within its module."""
    if not target.attr:
        for name in DEFAULT_ATTRIBUTES:
            if hasattr(module, name):
                return getattr(module, name)
        raise LoadError(
            f"module {module.__name__!r} has neither 'app' nor 'application'",
            hint=_candidates_hint(module),
        )
    found: Any = module
    path = module.__name__
    for name in target.attr.split("."):
        if not hasattr(found, name):
            what = "module" if isinstance(found, ModuleType) else type(found).__name__
            hint = suggest(name, (known for known in dir(found) if not known.startswith("__")))
            if not hint and isinstance(found, ModuleType):
                hint = _candidates_hint(found)
            raise LoadError(f"{what} {path!r} has no attribute {name!r}", hint=hint)
        found = getattr(found, name)
        path += "." + name
    return found


def _candidates_hint(module: ModuleType) -> str:
    """Names in ``module`` that look like applications."""
    names = []
    for name, value in vars(module).items():
        if name.startswith("_") or not callable(value) or inspect.isclass(value):
            continue
        if getattr(value, "__module__", module.__name__) != module.__name__ and inspect.isroutine(
            value
        ):
            continue
        if detect(value) in ("asgi", "wsgi"):
            names.append(f"{module.__name__}:{name}")
    return f"it looks as if it were {' or '.join(names[:3])}" if names else ""


def _make(factory: Any, name: str) -> Any:
    """Call the factory."""
    if not callable(factory):
        raise LoadError(f"{name}: the factory is not callable but a {type(factory).__name__}")
    try:
        app = factory()
    except (Exception, SystemExit) as error:
        hint = ""
        trace = error.__traceback__
        if isinstance(error, TypeError) and trace is not None and trace.tb_next is None:
            hint = "a factory is called without arguments; is this the application itself?"
        raise LoadError(
            f"{name}: the factory failed: {type(error).__name__}: {error}",
            hint=hint,
            trace=application_trace(error),
        ) from error
    if inspect.iscoroutine(app):
        app.close()
        raise LoadError(
            f"{name}: the factory is an async function",
            hint="make it an ordinary function; asynchronous set-up belongs into lifespan",
        )
    return app


def _interface(app: Callable[..., Any], name: str, wanted: str) -> Interface:
    if wanted != "auto":
        return cast(Interface, wanted)
    kind = detect(app)
    if kind in ("asgi", "wsgi"):
        return cast(Interface, kind)
    if kind == "asgi2":
        raise LoadError(
            f"{name} looks like an ASGI 2 application, which is not supported",
            hint="asgiref.compatibility.guarantee_single_callable turns it into ASGI 3",
        )
    if kind == "class":
        raise LoadError(
            f"{name} is a class, not an application",
            hint="name an instance of it, or use --factory if calling it makes the application",
        )
    least, most = _positional(app)
    if least == 0 == most:
        raise LoadError(
            f"{name} takes no arguments, so it is no application",
            hint="use --factory if calling it makes the application",
        )
    raise LoadError(
        f"cannot tell whether {name} is an ASGI or a WSGI application",
        hint="say it with --interface asgi or --interface wsgi",
    )


def _positional(app: Callable[..., Any]) -> tuple[int, int]:
    """How few and how many positional arguments ``app`` takes; (0, 99) if it does not say."""
    try:
        parameters = inspect.signature(app).parameters.values()
    except (TypeError, ValueError):
        return 0, 99
    least = most = 0
    for parameter in parameters:
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            most += 1
            least += parameter.default is parameter.empty
        elif parameter.kind is parameter.VAR_POSITIONAL:
            most = 99
        elif parameter.kind is parameter.KEYWORD_ONLY and parameter.default is parameter.empty:
            return 98, 98
    return least, most


def _is_method_of_arity(cls: type, count: int) -> bool:
    method = cls.__dict__.get("__call__")
    if method is None:
        return False
    least, most = _positional(method)
    return least <= count + 1 <= most
