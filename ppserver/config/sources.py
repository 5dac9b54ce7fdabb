"""Where settings come from: flags, environment, TOML file, and other platforms' variables.

In this order each wins over the next. An error begins with where the wrong value came from:
``--port: …``, ``PPSERVER_PORT: …``, ``ppserver.toml: port: …``. A ``--config`` file
and an environment file may both be given; the latter counts as environment.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
from collections.abc import Container, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from ppserver.config.settings import Config, check, convert, is_octal, own_names, table
from ppserver.config.table import ENV_PREFIX, flag_of, suggest, variable_of
from ppserver.errors import ConfigError

# Variables that platforms set for any server, as gunicorn and uvicorn read them: they replace
# defaults, and win over nothing that is said to ppserver itself.
_PLATFORM = {"WEB_CONCURRENCY": "cores", "FORWARDED_ALLOW_IPS": "forwarded_allow_ips"}
_PORTS = ("port", "uds", "fd", "bind")  # Any of these says more than PORT does.
# A Kubernetes service whose name begins with "ppserver", and a container link, inject these:
# https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables
_SERVICE = re.compile(
    ENV_PREFIX + r"(?:\w+_)?(?:SERVICE_HOST|SERVICE_PORT(?:_\w+)?"
    r"|PORT_[0-9]+_(?:TCP|UDP|SCTP)(?:_(?:ADDR|PORT|PROTO))?)"
)
_SERVICE_ADDRESS = re.compile(r"(?:tcp|udp|sctp)://.+")


class Source(NamedTuple):
    """Where a value came from."""

    kind: str  # "flag", "environment", "file", or a platform's variable
    name: str  # as an error begins: "--port", "PPSERVER_PORT", "ppserver.toml: port"


Sources: TypeAlias = Mapping[str, Source]


def gather(
    flags: Mapping[str, object], environ: Mapping[str, str], path: str | None
) -> tuple[Config, Sources]:
    """The configuration from all its sources, and where each setting came from.

    ``path`` is the TOML file's. An environment file is read first, since it may hold
    ``PPSERVER_*`` variables. Raises ConfigError, which says where the wrong value came from.
    """
    file = from_file(path) if path else {}
    own = from_environment(environ)
    of_variables = {name: Source("environment", variable_of(name)) for name in own}
    env_file = flags.get("env_file") or own.get("env_file") or file.get("env_file")
    if isinstance(env_file, str):
        added = read_env_file(env_file, environ)
        where = f" of {env_file}"
        more = from_environment(added, where)
        of_variables = {
            **{name: Source("environment", variable_of(name) + where) for name in more},
            **of_variables,
        }
        own = {**more, **own}
        environ = {**environ, **added}
    given = {**file, **own, **flags}
    platform, said_by = from_platform(environ, given)
    sources = {
        **{name: Source(variable, variable) for name, variable in said_by.items()},
        **{name: Source("file", f"{path}: {name}") for name in file},
        **of_variables,
        **{name: Source("flag", flag_of(name)) for name in flags},
    }
    with naming(sources):
        return Config(**{**platform, **given}), sources  # type: ignore[arg-type]


@contextlib.contextmanager
def naming(sources: Sources) -> Iterator[None]:
    """A ConfigError that is raised meanwhile begins with where the wrong value came from."""
    try:
        yield
    except ConfigError as error:
        if error.setting not in sources:
            raise
        raise error.said_by(sources[error.setting].name) from None


def from_environment(environ: Mapping[str, str], where: str = "") -> dict[str, object]:
    """Settings from ``PPSERVER_*`` variables. ConfigError for one that names no setting.

    The variables of Kubernetes services and container links are passed over. ``where`` is added
    to messages: " of FILE".
    """
    by_variable = {variable_of(name): name for option in table().values() for name in option.names}
    known = {*by_variable, ENV_PREFIX + "CONFIG"}
    found = {}
    for variable, text in environ.items():
        if not variable.startswith(ENV_PREFIX) or _is_of_a_service(variable, text, environ):
            continue
        if variable not in known:
            raise ConfigError(
                f"environment variable {variable}{where} names no setting",
                hint=_suggest_variable(variable, known)
                or f"{ENV_PREFIX}… is for settings; ppserver --help lists them",
            )
        if variable in by_variable:
            found[by_variable[variable]] = text
    named = own_names(found, lambda name: variable_of(name) + where)
    words = {name: word for word in found for name in own_names({word: ""})}
    return {
        name: _read(name, text, variable_of(words[name]) + where) for name, text in named.items()
    }


def _suggest_variable(variable: str, known: Iterable[str]) -> str:
    """A hint, if something is near without the prefix, by which every variable is near."""
    near = suggest(
        variable.removeprefix(ENV_PREFIX), [name.removeprefix(ENV_PREFIX) for name in known]
    )
    return near.replace("did you mean ", f"did you mean {ENV_PREFIX}")


def _is_of_a_service(variable: str, text: str, environ: Mapping[str, str]) -> bool:
    if _SERVICE.fullmatch(variable):
        return True
    if variable.endswith("PORT") and _SERVICE_ADDRESS.fullmatch(text):
        return True
    # A container link names itself "/web/ppserver" and hands over the other side's variables.
    linked = environ.get(ENV_PREFIX + "NAME", "").startswith("/")
    return linked and (variable == ENV_PREFIX + "NAME" or variable.startswith(ENV_PREFIX + "ENV_"))


def _read(name: str, text: str, variable: str) -> object:
    with naming({name: Source("environment", variable)}):
        return check(name, convert(name, text))


def from_platform(
    environ: Mapping[str, str], given: Container[str]
) -> tuple[dict[str, object], dict[str, str]]:
    """What ``WEB_CONCURRENCY``, ``FORWARDED_ALLOW_IPS`` and ``PORT`` say, and who said what.

    ``given`` are the settings that are set otherwise. ``PORT`` is the port of ``host``; where that
    is not given either, the server listens on every IPv4 address, as platforms that set ``PORT``
    expect. Raises ConfigError.
    """
    found: dict[str, object] = {}
    said_by: dict[str, str] = {}
    for variable, name in _PLATFORM.items():
        if environ.get(variable):
            found[name] = _read(name, environ[variable], variable)
            said_by[name] = variable
    if environ.get("PORT") and not any(name in given for name in _PORTS):
        found["port"], said_by["port"] = _read("port", environ["PORT"], "PORT"), "PORT"
        if "host" not in given:
            found["host"], said_by["host"] = "0.0.0.0", "PORT"
    return found, said_by


def from_file(path: str) -> dict[str, object]:
    """Settings from a TOML file; of a ``pyproject.toml`` its ``[tool.ppserver]`` table.

    Raises ConfigError if it cannot be read, is not TOML, or names no setting.
    """
    import tomllib  # Of use with a file only; every context would keep it.

    try:
        text = Path(path).read_bytes().decode()
        data: dict[str, Any] = tomllib.loads(text)
    except OSError as error:
        raise ConfigError(f"cannot read configuration file {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: this is not valid TOML: {error}") from None
    if Path(path).name == "pyproject.toml":
        data = data.get("tool", {}).get("ppserver", {})
    keys = {key.replace("-", "_"): key for key in data}
    values = {key.replace("-", "_"): value for key, value in data.items()}
    try:
        named = own_names(values)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}", hint=error.hint) from None
    words = {name: word for word in values for name in own_names({word: ""})}
    found = {}
    for name, value in named.items():
        key = keys[words[name]]
        if is_octal(name) and type(value) is int and not _is_written_octal(text, key):
            raise ConfigError(
                f"{path}: {key} = {value} is a decimal number",
                hint=f'for octal digits write {key} = "0{value}" or {key} = 0o{value}',
            )
        with naming({name: Source("file", f"{path}: {key}")}):
            found[name] = check(name, value)
    return found


def _is_written_octal(text: str, key: str) -> bool:
    """Whether the file writes the number after ``key`` as 0o22: TOML's reader does not tell."""
    return re.search(rf"(?m)^[\s{{,]*[\"']?{re.escape(key)}[\"']?\s*=\s*0o", text) is not None


def read_env_file(path: str, environ: Mapping[str, str]) -> dict[str, str]:
    """The variables of an environment file that ``environ`` does not have yet.

    The grammar is that of python-dotenv: ``NAME=value`` lines, ``export`` before them, quotes
    that may span lines, comments after white space, ``${NAME}``. Raises ConfigError if the file
    cannot be read or a line has another form.
    """
    from dotenv.main import DotEnv  # Only who has such a file pays for the import.
    from dotenv.parser import parse_stream

    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read {path}: {error}", setting="env_file") from None
    for binding in parse_stream(io.StringIO(text)):
        if binding.error or (binding.key and not re.fullmatch(r"[A-Za-z_][\w.-]*", binding.key)):
            skipped = len(binding.original.string) - len(binding.original.string.lstrip("\r\n"))
            line = binding.original.line + binding.original.string[:skipped].count("\n")
            raise ConfigError(f"{path} line {line} is not NAME=value", setting="env_file")
    values = DotEnv(None, stream=io.StringIO(text), override=False).dict()
    if any("\0" in (value or "") for value in values.values()):
        raise ConfigError(f"{path} contains a NUL character", setting="env_file")
    return {
        name: value for name, value in values.items() if value is not None and name not in environ
    }


def to_toml(config: Config, sources: Mapping[str, str]) -> str:
    """The configuration as a TOML file that gives it again, with the source of what is not a
    default. Raises ConfigError for text that TOML cannot hold."""
    lines = []
    for name in table():
        value = getattr(config, name)
        source = sources.get(name, "default")
        if value is None or (name == "app" and not value):
            lines.append(f"# {name} is not set")
            continue
        text = f"0o{value:03o}" if is_octal(name) else _toml(name, value)
        lines.append(f"{name} = {text}" + (f"  # {source}" if source != "default" else ""))
    return "\n".join(lines) + "\n"


def _toml(name: str, value: object) -> str:
    if isinstance(value, str | tuple):
        parts = value if isinstance(value, tuple) else (value,)
        for part in parts:
            try:
                part.encode()
            except UnicodeEncodeError:
                raise ConfigError(f"{part!r} is not UTF-8, which TOML is", setting=name) from None
    # JSON's strings are TOML's, but for DEL, and for what JSON writes as surrogates.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def port_is_the_platforms(sources: Sources) -> bool:
    """Whether only ``PORT`` says where to listen: worth a line at start."""
    return "host" in sources and sources["host"].kind == "PORT"
