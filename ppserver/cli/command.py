"""The command line: ``ppserver APP [options]``.

Every flag comes from the table of settings in :mod:`ppserver.config`; a flag beats the
environment, that beats the file, that beats the default.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from ppserver import config as settings
from ppserver._version import __version__
from ppserver.config import Config, Option, foreign, table
from ppserver.config.sources import Source, Sources, gather, naming, port_is_the_platforms, to_toml
from ppserver.config.table import flag_of
from ppserver.context import exits
from ppserver.errors import ConfigError, PPServerError, report
from ppserver.machine import terminal
from ppserver.observe import logs

_USAGE = "ppserver APP [options]"
_EPILOG = """\
Every option is also an environment variable (--limit-pipeline: PPSERVER_LIMIT_PIPELINE) and a
key of the TOML file given by --config (limit_pipeline); flags win over the environment, that
over the file.

examples:
  ppserver main:app                          one context, http://127.0.0.1:8000
  ppserver main:app --cores all -b :80       every core, every address, port 80
  ppserver shop.wsgi --threads 8             WSGI, found by itself
  ppserver 'main:create_app()' --uds /run/shop.sock
"""


class _Parser(argparse.ArgumentParser):
    """An argument parser whose errors are ours."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(message, hint="ppserver --help lists every option")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code. Reports errors on stderr, raises none of its own."""
    try:
        terminal.open_standard_descriptors()
        _check_installation()
        code = _run(sys.argv[1:] if argv is None else list(argv))
        if argv is None:  # The process is ours: threads do not keep it beyond the graceful timeout.
            exits.bound_rest(code)
        return code
    except PPServerError as error:
        report(error, sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130


def _check_installation() -> None:
    """Say so where a source checkout, not what is installed, is what Python has imported.

    Raises PPServerError if it has no extension that this interpreter can load.
    """
    here = Path(__file__).resolve().parent.parent
    is_checkout = (here / "native").is_dir()
    installed = _installed() if is_checkout else here
    shadows = installed not in (None, here)
    also = f", which shadows the installed package in {installed}" if shadows else ""
    try:
        import ppserver._native  # noqa: F401
    except ImportError as error:
        if not is_checkout:
            raise PPServerError(
                f"the extension of {here} cannot be loaded: {error}",
                hint="is it installed for another Python? pip install --force-reinstall ppserver",
            ) from None
        raise PPServerError(
            f"{here} is a source checkout without an extension for this Python{also}",
            hint="run ppserver from another directory"
            if shadows
            else "./dev makes one, or install the package: pip install .",
        ) from None
    if shadows:
        print(f"ppserver: warning: running from a source checkout, {here}{also}", file=sys.stderr)


def _installed() -> Path | None:
    """The folder of the installed package, if one is installed as files."""
    from importlib import metadata  # Dear to import, and of use in a checkout only.

    try:
        found = Path(str(metadata.distribution("ppserver").locate_file("ppserver"))).resolve()
    except metadata.PackageNotFoundError:
        return None
    return found if (found / "__init__.py").is_file() else None


def _run(argv: list[str]) -> int:
    arguments = _parse(argv)
    if arguments.pop("version", False):
        print(version())
        return 0
    check_only, print_only = arguments.pop("check_config"), arguments.pop("print_config")
    path = arguments.pop("config") or os.environ.get("PPSERVER_CONFIG")
    assert path is None or isinstance(path, str)
    config, sources = gather(arguments, os.environ, path)
    if print_only:
        kinds = {name: source.kind for name, source in sources.items()}
        print(to_toml(config, kinds), end="")
        return 0
    if not config.app:
        raise ConfigError("no application given", hint="for example: ppserver main:app")
    with naming(sources):
        return _check(config) if check_only else _serve(config, sources)


def _serve(config: Config, sources: Sources) -> int:
    from ppserver.supervision import launch

    if port_is_the_platforms(sources):
        logs.configure(config)
        logs.error_logger.info(
            "PORT=%d is set: listening on every IPv4 address; --host sets another", config.port
        )
    return launch.run(config, given=sources)


def version() -> str:
    """ppserver, the interpreter and the machine, on one line."""
    try:
        from ppserver._native import simd_level

        simd = simd_level()
    except ImportError:
        simd = "extension not built"
    return (
        f"ppserver {__version__} ({platform.python_implementation()} "
        f"{platform.python_version()}, {platform.machine()}, {simd})"
    )


def _check(config: Config) -> int:
    """Settings are right by now; see whether the application loads, too."""
    from ppserver.app import hooks
    from ppserver.app.loader import load
    from ppserver.config.addresses import addresses
    from ppserver.supervision.privileges import identity

    addresses(config)
    identity(config)
    application = load(config)
    hooks.check(config)
    article = "an" if application.interface == "asgi" else "a"
    kind = f"{article} {application.interface.upper()} app"
    print(f"configuration is right; {application.name} is {kind}")
    return 0


def _parse(argv: list[str]) -> dict[str, object]:
    """Flags as settings, plus ``config``, ``check_config``, ``print_config``, ``version``."""
    parser = build_parser()
    found, unknown = parser.parse_known_args(argv)
    if unknown:
        flags = [flag for action in parser._actions for flag in action.option_strings]
        name = unknown[0].partition("=")[0]
        hint = foreign.hint(name) or settings.suggest(name, flags, cutoff=0.8)
        raise ConfigError(
            f"unknown argument {unknown[0]!r}", hint=hint or "ppserver --help lists every option"
        )
    result = {name: value for name, value in vars(found).items() if value is not argparse.SUPPRESS}
    values: dict[str, object] = {}
    for name, value in result.items():
        option = table().get(name)
        if option is not None and isinstance(value, list):
            parts = [settings.convert(name, text) for text in value]
            value = tuple(text for part in parts if isinstance(part, tuple) for text in part)
        elif option is not None and isinstance(value, str):
            with naming({name: Source("flag", option.flag)}):
                value = settings.convert(name, value)
        values[name] = value
    return values


def build_parser() -> argparse.ArgumentParser:
    """The parser made from the table of settings."""
    parser = _Parser(
        prog="ppserver",
        usage=_USAGE,
        description="Serve an ASGI or WSGI application, on as many cores as you like.",
        epilog=_EPILOG,
        formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(
            prog, max_help_position=32
        ),
        allow_abbrev=False,
        add_help=False,
    )
    groups = {group.TITLE: parser.add_argument_group(group.TITLE) for group in settings.GROUPS}
    for option in table().values():
        _add(groups[option.setting.group], option)
    general = parser.add_argument_group("General")
    general.add_argument("-c", "--config", metavar="FILE", help="read settings from a TOML file")
    general.add_argument(
        "--check-config", action="store_true", help="check settings, load the application, stop"
    )
    general.add_argument(
        "--print-config", action="store_true", help="print every setting and its source, stop"
    )
    general.add_argument(
        "--version", action="store_true", default=argparse.SUPPRESS, help="print the version, stop"
    )
    general.add_argument("-h", "--help", action="help", help="print this help, stop")
    return parser


def _add(group: argparse._ArgumentGroup, option: Option) -> None:
    setting = option.setting
    text = setting.help.replace("%", "%%")
    if option.name == "app":
        group.add_argument("app", nargs="?", metavar="APP", default=argparse.SUPPRESS, help=text)
        return
    flags = [*setting.flags, *map(flag_of, option.names)]
    default = _default_text(option)
    if default:
        text += f" (default: {default})"
    if option.kind is bool:
        group.add_argument(
            *flags, action=argparse.BooleanOptionalAction, default=argparse.SUPPRESS, help=text
        )
    else:
        group.add_argument(
            *flags,
            dest=option.name,
            action="append" if option.kind is tuple else "store",
            metavar="|".join(setting.choices) or setting.metavar,
            default=argparse.SUPPRESS,
            help=text,
        )


def _default_text(option: Option) -> str:
    default = option.default
    if option.kind is bool:
        return "on" if default else "off"
    if default is None or default == () or default == "":
        return ""
    if isinstance(default, tuple):
        return ",".join(default)
    return f"{default:g}" if isinstance(default, float) else str(default)
