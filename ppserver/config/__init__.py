"""Settings: one table, from which come ``Config`` fields, flags, environment names and docs.

A setting is a field of :class:`Config` whose annotation carries a :class:`Setting`. Its name is
the same everywhere: field ``limit_pipeline``, flag ``--limit-pipeline``, environment variable
``PPSERVER_LIMIT_PIPELINE``, key ``limit_pipeline`` in the TOML file and in the reference.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import os
import re
import sys
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any

from ppserver.config.proxy import TrustedProxies
from ppserver.config.targets import parse_function
from ppserver.errors import ConfigError

ENV_PREFIX = "PPSERVER_"
HOOKS = ("on_start", "on_context_start", "on_context_stop", "on_stop")
_LOCAL_PROXIES = ("127.0.0.1", "::1")
_TRUE = {"1", "true", "yes", "on"}
_FALSE = {"0", "false", "no", "off"}
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_FIELD_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """How one setting is shown, read and checked."""

    group: str
    help: str
    metavar: str = ""
    choices: tuple[str, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    flags: tuple[str, ...] = ()
    separator: str = ","
    parse: Callable[[str], object] | None = None


def _cores(text: str) -> object:
    if text == "all":
        return text
    if not re.fullmatch(r"[0-9]{1,4}", text):
        raise ValueError("is neither 'all' nor a number")
    return int(text)


def _octal(text: str) -> object:
    if not re.fullmatch(r"(0o)?[0-7]{1,4}", text):
        raise ValueError("is not an octal number such as 022")
    return int(text, 8)


_APP, _ADDR, _CTX, _LOG = "Application", "Address", "Contexts", "Logging"
_HTTP, _LIMITS, _TIMES, _PROC = "HTTP", "Limits", "Timeouts", "Process"

_SECONDS = "SECONDS"


def _seconds(help_text: str, *, group: str = _TIMES) -> Setting:
    return Setting(group=group, help=help_text, metavar=_SECONDS, minimum=0, maximum=86400)


def _function(help_text: str) -> Setting:
    return Setting(group=_CTX, help=help_text, metavar="MODULE:FUNCTION")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """All settings of a server, checked once when it is made.

    Raises :class:`~ppserver.errors.ConfigError`, naming setting and value, when one is wrong.
    """

    app: Annotated[
        Any,
        Setting(
            group=_APP,
            help="application: module:attr, module:factory(), a module, or a .py file; "
            "from Python also the application itself",
            metavar="APP",
        ),
    ] = dataclasses.field(default="", kw_only=False)
    app_dir: Annotated[
        str, Setting(group=_APP, help="directory to import the application from", metavar="DIR")
    ] = "."
    factory: Annotated[
        bool, Setting(group=_APP, help="APP is a function that makes the application")
    ] = False
    interface: Annotated[
        str,
        Setting(
            group=_APP,
            help="what kind of application it is; auto looks at its signature, and for a .py file "
            "at whether it imports parallel",
            choices=("auto", "asgi", "wsgi", "parallel"),
        ),
    ] = "auto"
    lifespan: Annotated[
        str,
        Setting(
            group=_APP,
            help="ASGI lifespan: auto tries and goes on without, on insists, off does not ask",
            choices=("auto", "on", "off"),
        ),
    ] = "auto"
    root_path: Annotated[
        str,
        Setting(group=_APP, help="path the application is mounted under", metavar="PATH"),
    ] = ""
    root_path_mode: Annotated[
        str,
        Setting(
            group=_APP,
            help="whether a proxy has taken root_path off a request's path; auto: not where the "
            "path begins with it",
            choices=("auto", "stripped", "unstripped"),
        ),
    ] = "auto"
    env_file: Annotated[
        str | None,
        Setting(
            group=_APP,
            help="read environment variables from a file of NAME=value lines; "
            "variables already set win",
            metavar="FILE",
        ),
    ] = None

    host: Annotated[str, Setting(group=_ADDR, help="address to listen on", metavar="HOST")] = (
        "127.0.0.1"
    )
    port: Annotated[
        int,
        Setting(
            group=_ADDR,
            help="port to listen on; 0 takes a free one",
            metavar="PORT",
            minimum=0,
            maximum=65535,
        ),
    ] = 8000
    uds: Annotated[
        str | None,
        Setting(group=_ADDR, help="listen on a Unix socket at this path instead", metavar="PATH"),
    ] = None
    fd: Annotated[
        int | None,
        Setting(
            group=_ADDR,
            help="listen on this inherited, bound descriptor instead",
            metavar="FD",
            minimum=0,
            maximum=2**20,
        ),
    ] = None
    bind: Annotated[
        tuple[str, ...],
        Setting(
            group=_ADDR,
            help="listen here: HOST:PORT, [IPV6]:PORT, unix:PATH or fd://N; "
            "may be given several times, and replaces the four above",
            metavar="ADDRESS",
            flags=("-b",),
        ),
    ] = ()
    backlog: Annotated[
        int,
        Setting(
            group=_ADDR,
            help="connections the kernel may hold before they are accepted",
            metavar="N",
            minimum=1,
            maximum=65535,
        ),
    ] = 2048

    cores: Annotated[
        int | str,
        Setting(
            group=_CTX,
            help="how many contexts to run, one a core; all: as many as this process's affinity "
            "and its cgroup's cpuset, CPU quota and memory limit allow",
            metavar="all|N",
            minimum=1,
            maximum=1024,
            flags=("-w", "--workers"),
            parse=_cores,
        ),
    ] = 1
    contexts: Annotated[
        str,
        Setting(
            group=_CTX,
            help="where contexts live; auto: threads on a free-threaded Python where the "
            "application allows it, else forked processes (for one context see --supervise); "
            "interpreters (experimental, 3.13+) is never chosen by itself",
            choices=("auto", "processes", "threads", "interpreters"),
        ),
    ] = "auto"
    supervise: Annotated[
        str,
        Setting(
            group=_CTX,
            help="whether one context runs under a supervisor, which replaces it and reloads; "
            "auto: the command does so unless it is started at a terminal without --cores and "
            "nothing else needs it; several contexts always have one",
            choices=("auto", "always", "never"),
        ),
    ] = "auto"
    balance: Annotated[
        str,
        Setting(
            group=_CTX,
            help="who gets a new connection: load, the least loaded context; kernel, whomever the "
            "kernel's hash of its address picks (SO_REUSEPORT)",
            choices=("load", "kernel"),
        ),
    ] = "load"
    gil: Annotated[
        str,
        Setting(
            group=_CTX,
            help="on a free-threaded Python: off starts it with PYTHON_GIL=0, whatever modules "
            "are imported; on with PYTHON_GIL=1; auto leaves it as it is",
            choices=("auto", "off", "on"),
        ),
    ] = "auto"
    load: Annotated[
        str,
        Setting(
            group=_CTX,
            help="once imports the application in one process that all others are forked from; "
            "each imports it in every context; auto is once, or each if the import opened "
            "connections or database files or started threads, which must not be shared",
            choices=("auto", "once", "each"),
        ),
    ] = "auto"
    on_start: Annotated[
        str | None,
        _function(
            "call this function after the application is imported and before contexts start, "
            "once (with --load each, in each context): the place to load data that all contexts "
            "read"
        ),
    ] = None
    on_context_start: Annotated[
        str | None,
        _function(
            "call this function in each context before it serves: the place to open connections "
            "and start threads; it may be async for ASGI"
        ),
    ] = None
    on_context_stop: Annotated[
        str | None,
        _function("call this function in each context after its last request; may be async too"),
    ] = None
    on_stop: Annotated[
        str | None,
        _function(
            "call this function after all contexts have ended, once (with --load each, at the end "
            "of each context)"
        ),
    ] = None
    freeze: Annotated[
        bool,
        Setting(
            group=_CTX,
            help="make what is loaded before contexts start immortal (Python 3.12+), so that "
            "several contexts read it without writing reference counts",
        ),
    ] = True
    loop: Annotated[
        str,
        Setting(
            group=_CTX,
            help="event loop for ASGI; auto is uvloop where it is installed and usable, else "
            "asyncio on the server's own selector",
            choices=("auto", "asyncio", "uvloop"),
        ),
    ] = "auto"
    task: Annotated[
        str,
        Setting(
            group=_CTX,
            help="how an ASGI request gets its task: a reused worker task, an eager task "
            "(3.12+), or a plain new one",
            choices=("worker", "eager", "plain"),
        ),
    ] = "worker"
    threads: Annotated[
        int,
        Setting(
            group=_CTX,
            help="threads of a context that may run WSGI requests at a time",
            metavar="N",
            minimum=1,
            maximum=1024,
        ),
    ] = 32

    pin: Annotated[
        str,
        Setting(
            group=_CTX,
            help="bind each context to a CPU of its own, one on every physical core first, or to "
            "the CPUs of one NUMA node",
            choices=("off", "core", "node"),
        ),
    ] = "off"

    server_header: Annotated[bool, Setting(group=_HTTP, help="send the Server header")] = True
    date_header: Annotated[bool, Setting(group=_HTTP, help="send the Date header")] = True
    header: Annotated[
        tuple[str, ...],
        Setting(
            group=_HTTP,
            help="add this header to every response; may be given several times",
            metavar="'NAME: VALUE'",
            separator="\n",
        ),
    ] = ()
    proxy_headers: Annotated[
        bool,
        Setting(
            group=_HTTP,
            help="take client address and scheme from X-Forwarded-For and X-Forwarded-Proto "
            "of trusted proxies, and remove them from the requests of all other clients",
        ),
    ] = False
    forwarded_allow_ips: Annotated[
        tuple[str, ...],
        Setting(
            group=_HTTP,
            help="proxies to trust: addresses, networks, 'unix', or *; separated by commas",
            metavar="LIST",
        ),
    ] = _LOCAL_PROXIES

    limit_concurrency: Annotated[
        int,
        Setting(
            group=_LIMITS,
            help="requests with the application at a time, per context; more get 503; "
            "0 is no limit",
            metavar="N",
            minimum=0,
            maximum=100_000_000,
        ),
    ] = 0
    limit_max_requests: Annotated[
        int,
        Setting(
            group=_LIMITS,
            help="replace a context after about this many requests; 0 is never",
            metavar="N",
            minimum=0,
            maximum=2**53,
        ),
    ] = 0
    limit_max_requests_jitter: Annotated[
        int,
        Setting(
            group=_LIMITS,
            help="add up to this many at random, so that contexts are not replaced together",
            metavar="N",
            minimum=0,
            maximum=2**53,
        ),
    ] = 0
    limit_request_line: Annotated[
        int,
        Setting(
            group=_LIMITS,
            help="bytes of a request line; a longer one gets 414",
            metavar="BYTES",
            minimum=64,
            maximum=1 << 20,
        ),
    ] = 8192
    limit_request_fields: Annotated[
        int,
        Setting(
            group=_LIMITS,
            help="header fields of a request; more get 431",
            metavar="N",
            minimum=1,
            maximum=256,
        ),
    ] = 100
    limit_request_head: Annotated[
        int,
        Setting(
            group=_LIMITS,
            help="bytes of a whole request head; a longer one gets 431",
            metavar="BYTES",
            minimum=128,
            maximum=1 << 20,
        ),
    ] = 32768
    limit_pipeline: Annotated[
        int,
        Setting(
            group=_LIMITS,
            help="pipelined requests read ahead on one connection",
            metavar="N",
            minimum=1,
            maximum=10000,
        ),
    ] = 64
    max_request_body_size: Annotated[
        int,
        Setting(
            group=_LIMITS,
            help="bytes of a request body; a longer one gets 413; 0 is no limit",
            metavar="BYTES",
            minimum=0,
            maximum=2**62,
        ),
    ] = 0
    spool_size: Annotated[
        int,
        Setting(
            group=_LIMITS,
            help="WSGI: receive request bodies of more than 1 MiB, too, before the application is "
            "called, in a temporary file in $TMPDIR or /var/tmp of this size for each context; the "
            "application reads what has no room as it comes; 0 is none",
            metavar="BYTES",
            minimum=0,
            maximum=2**62,
        ),
    ] = 1 << 30

    timeout_keep_alive: Annotated[
        float, _seconds("close a connection that has had no request for this long; 0 is never")
    ] = 75.0
    timeout_request_header: Annotated[
        float, _seconds("time for a request head to arrive whole, else 408; 0 is no limit")
    ] = 10.0
    timeout_body_idle: Annotated[
        float, _seconds("longest pause within a request body, else 408; 0 is no limit")
    ] = 30.0
    timeout_write: Annotated[
        float,
        _seconds(
            "close the connection if the client reads nothing of the response for this long; "
            "0 is no limit"
        ),
    ] = 30.0
    disconnect_grace: Annotated[
        float,
        _seconds(
            "how long a client that ends its side before the response begins may still be "
            "waiting, before the application hears that it left; 0 tells it at once"
        ),
    ] = 1.0
    tcp_keep_alive: Annotated[
        float,
        _seconds(
            "close a connection whose client's machine has answered nothing for this long; "
            "0 leaves that to the system"
        ),
    ] = 60.0
    timeout_startup: Annotated[
        float,
        _seconds(
            "time for the functions of on_context_start, and as much again for the application's "
            "lifespan start-up; 0 is no limit"
        ),
    ] = 0.0
    timeout_reload: Annotated[
        float,
        _seconds(
            "time for a reload until the new contexts serve, else the old ones go on; 0 is no limit"
        ),
    ] = 300.0
    timeout_graceful_shutdown: Annotated[
        float, _seconds("time for running requests to end after SIGTERM; 0 ends them at once")
    ] = 30.0
    shutdown_delay: Annotated[
        float,
        _seconds("go on serving for this long after SIGTERM, while a load balancer turns away"),
    ] = 0.0

    log_level: Annotated[
        str,
        Setting(
            group=_LOG,
            help="least level of the server's own messages",
            choices=("critical", "error", "warning", "info", "debug"),
        ),
    ] = "info"
    log_config: Annotated[
        str | None,
        Setting(
            group=_LOG,
            help="configure Python's logging from a file (.toml, .json or fileConfig's format)",
            metavar="FILE",
        ),
    ] = None
    log_format: Annotated[
        str,
        Setting(group=_LOG, help="form of log lines on the console", choices=("text", "json")),
    ] = "text"
    access_log: Annotated[bool, Setting(group=_LOG, help="write a line per request")] = True

    pid: Annotated[
        str | None, Setting(group=_PROC, help="write the process number here", metavar="FILE")
    ] = None
    user: Annotated[
        str | None,
        Setting(group=_PROC, help="user to become once sockets are open", metavar="NAME|ID"),
    ] = None
    group: Annotated[
        str | None,
        Setting(group=_PROC, help="group to become once sockets are open", metavar="NAME|ID"),
    ] = None
    umask: Annotated[
        int | None,
        Setting(
            group=_PROC,
            help="file mode creation mask, octal",
            metavar="MASK",
            minimum=0,
            maximum=0o777,
            parse=_octal,
        ),
    ] = None

    def __post_init__(self) -> None:
        for name in table():
            object.__setattr__(self, name, check(name, getattr(self, name)))
        _check_together(self)

    @property
    def response_headers(self) -> list[tuple[bytes, bytes]]:
        """``header`` as pairs of bytes."""
        return [_split_header(line) for line in self.header]


class Option(typing.NamedTuple):
    """A row of the table: a setting with what its annotation and default say."""

    name: str
    kind: type
    optional: bool
    default: Any
    setting: Setting

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")

    @property
    def env(self) -> str:
        return ENV_PREFIX + self.name.upper()


@functools.cache
def table() -> Mapping[str, Option]:
    """Every setting by name, in the order of the reference."""
    hints = typing.get_type_hints(Config, include_extras=True)
    rows = {}
    for field in dataclasses.fields(Config):
        base, setting = typing.get_args(hints[field.name])
        members = typing.get_args(base) if isinstance(base, types.UnionType) else (base,)
        kinds = [typing.get_origin(kind) or kind for kind in members if kind is not types.NoneType]
        kind = kinds[0] if isinstance(kinds[0], type) else object
        optional = types.NoneType in members
        rows[field.name] = Option(field.name, kind, optional, field.default, setting)
    return types.MappingProxyType(rows)


def is_octal(name: str) -> bool:
    """Whether a setting is written in octal digits, as a file mode is."""
    return table()[name].setting.parse is _octal


def suggest(word: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """A did-you-mean hint for ``word``, or ``""`` if nothing known is near."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=cutoff)
    return f"did you mean {near[0]}?" if near else ""


def convert(name: str, text: str) -> object:
    """The value a flag's or environment variable's text stands for.

    Raises ConfigError if the text cannot be one; ranges are for :func:`check`.
    """
    option = table()[name]
    setting = option.setting
    try:
        if setting.parse is not None:
            return setting.parse(text)
        if option.kind is bool:
            return _boolean(text)
        if option.kind is int:
            return _integer(text)
        if option.kind is float:
            return _number(text)
    except ValueError as error:
        raise ConfigError(f"{name}: {text!r} {error}") from None
    if option.kind is tuple:
        return tuple(part.strip() for part in text.split(setting.separator) if part.strip())
    return text


def check(name: str, value: object) -> object:
    """``value`` in its normal form; ConfigError naming setting and value if it is wrong."""
    option = table()[name]
    setting = option.setting
    if name == "app" or (value is None and option.optional):
        return value
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if setting.parse is not None and isinstance(value, str):
        value = convert(name, value)
        if isinstance(value, str):
            return value
    if option.kind is tuple:
        value = _strings(name, value)
    elif option.kind is float and type(value) is int:
        value = float(value)
    if type(value) is not option.kind:
        wanted = {int: "a whole number", float: "a number", bool: "true or false"}
        raise ConfigError(f"{name}: {value!r} is not {wanted.get(option.kind, 'a string')}")
    _check_range(name, setting, value)
    return value


def _check_range(name: str, setting: Setting, value: object) -> None:
    if setting.choices and value not in setting.choices:
        choices = ", ".join(setting.choices)
        hint = suggest(str(value), setting.choices)
        raise ConfigError(f"{name}: {value!r} is not one of {choices}", hint=hint)
    if isinstance(value, str) and "\0" in value:
        raise ConfigError(f"{name}: {value!r} contains a NUL character")
    if isinstance(value, int | float):
        if value != value:
            raise ConfigError(f"{name}: {value!r} is not a number")
        if setting.minimum is not None and value < setting.minimum:
            raise ConfigError(f"{name}: {value!r} is too small (at least {setting.minimum})")
        if setting.maximum is not None and value > setting.maximum:
            raise ConfigError(f"{name}: {value!r} is too large (at most {setting.maximum})")


def _check_together(config: Config) -> None:
    given = [name for name in ("uds", "fd") if getattr(config, name) is not None]
    if config.bind:
        given.append("bind")
    if len(given) > 1:
        raise ConfigError(
            f"{' and '.join(given)} cannot be used together",
            hint="bind can be given several times: -b unix:PATH -b HOST:PORT",
        )
    if config.limit_request_line > config.limit_request_head:
        raise ConfigError(
            f"limit_request_line: {config.limit_request_line} is larger than "
            f"limit_request_head ({config.limit_request_head})"
        )
    if config.root_path and (not config.root_path.startswith("/") or config.root_path[-1] == "/"):
        raise ConfigError(
            f"root_path: {config.root_path!r} must begin with a slash and not end with one"
        )
    for line in config.header:
        _split_header(line)
    if config.task == "eager" and sys.version_info < (3, 12):
        raise ConfigError("task: eager tasks need Python 3.12", hint="--task worker is faster")
    if config.contexts == "interpreters":
        _check_interpreters(config)
    if config.supervise == "never" and (config.contexts != "auto" or config.cores != 1):
        raise ConfigError(
            "supervise: 'never' is for one context in this very process",
            hint="leave --cores and --contexts out, or let it be supervised",
        )
    if config.load == "each":
        _check_load_each(config)
    for name in HOOKS:
        if (target := getattr(config, name)) is not None:
            parse_function(target, name)
    if config.proxy_headers or config.forwarded_allow_ips != _LOCAL_PROXIES:
        TrustedProxies(config.forwarded_allow_ips)


def _check_load_each(config: Config) -> None:
    """What cannot be imported several times."""
    if config.contexts == "threads":
        raise ConfigError(
            "load: 'each' is not for threads, which have one import system",
            hint="--contexts processes, or a factory: every thread then has an application",
        )
    if not isinstance(config.app, str):
        raise ConfigError(
            f"load: {config.app!r} is there already and cannot be imported by each context",
            hint="give an import string: 'module:app'",
        )
    if config.interface == "parallel":
        raise ConfigError(
            "load: 'each' is not for programs of the parallel API, which run once",
            hint="open what a context needs in on_context_start",
        )


def _check_interpreters(config: Config) -> None:
    """What interpreters with a GIL of their own cannot do."""
    version = sys.version_info[:2]
    if version < (3, 13):
        why = (
            "in 3.12 asyncio corrupts memory when several interpreters run at once"
            if version == (3, 12)
            else "before 3.12 all interpreters of a process share one GIL"
        )
        raise ConfigError(
            f"contexts: 'interpreters' needs Python 3.13: {why}",
            hint="--contexts processes runs one context per core",
        )
    if config.loop == "uvloop":
        raise ConfigError(
            "loop: uvloop cannot be loaded in interpreters with a GIL of their own",
            hint="--loop asyncio, or --contexts processes",
        )
    if not isinstance(config.app, str):
        raise ConfigError(
            f"app: {config.app!r} cannot be given to other interpreters",
            hint="--contexts interpreters needs an import string: 'module:app'",
        )


def _split_header(line: str) -> tuple[bytes, bytes]:
    name, colon, value = line.partition(":")
    value = value.strip(" \t")
    if not colon or not _TOKEN.fullmatch(name) or not _FIELD_VALUE.fullmatch(value):
        raise ConfigError(f"header: {line!r} is not of the form 'Name: value'")
    if name.lower() in ("content-length", "transfer-encoding", "connection"):
        raise ConfigError(f"header: {name} is the server's own to send")
    return name.encode("ascii"), value.encode("latin-1")


def _strings(name: str, value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        value = convert(name, value)
    if not isinstance(value, list | tuple) or not all(isinstance(part, str) for part in value):
        raise ConfigError(f"{name}: {value!r} is not a list of strings")
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
