"""Gives TEFB its database: an ODBC driver by the name that the program asks for, and its tables.

    python -m examples.tefb_db sqlite
    python -m examples.tefb_db postgresql --admin 'Server=localhost;Uid=postgres;Pwd=...'

TEFB connects with `Driver={SQL Server};Server=localhost;Database=hello_world;...`. Both commands
write an odbcinst.ini in which that driver is SQLite's, or PostgreSQL's, and say what to put into
the environment so that unixODBC reads it. Again does no harm: what is there is filled anew.

With SQLite, `Database=hello_world` is the file of that name in the folder where the program runs.
"""

import argparse
import glob
import os
import random
import re
import sys
from pathlib import Path

DRIVER = "SQL Server"
DATABASE = "hello_world"
USER = "benchmarkdbuser"
PASSWORD = "B3nchmarkDBPass"
CONNECT = f"Driver={{{DRIVER}}};Server=localhost;Database={DATABASE};Uid={USER};Pwd={PASSWORD};"

WORLDS = 10_001  # rows of `world`, ids 0 to 10,000
FORTUNES = (
    "fortune: No such file or directory",
    "A computer scientist is someone who fixes things that aren't broken.",
    "After enough decimal places, nobody gives a damn.",
    "A bad random number generator: 1, 1, 1, 1, 1, 4.33e+67, 1, 1, 1",
    "A computer program does what you tell it to do, not what you want it to do.",
    "Emacs is a nice operating system, but I prefer UNIX. \N{EM DASH} Tom Christaensen",
    "Any program that runs right is obsolete.",
    "A list is only as strong as its weakest link. \N{EM DASH} Donald Knuth",
    "Feature: A bug with seniority.",
    "Computers make very fast, very accurate mistakes.",
    '<script>alert("This should not be displayed in a browser alert box.");</script>',
    "フレームワークのベンチマーク",
)

_ROWS_AT_ONCE = 400  # SQLite takes 999 values in a statement, as it is often built
_TABLES = (
    "CREATE TABLE world (id integer PRIMARY KEY, randomNumber integer NOT NULL)",
    "CREATE TABLE fortune (id integer PRIMARY KEY, message varchar(2048) NOT NULL)",
)
_FOLDERS = (
    "/usr/lib/*/odbc",
    "/usr/lib/*",
    "/usr/lib/odbc",
    "/usr/lib64",
    "/usr/lib",
    "/usr/local/lib",
)
_SETTING = re.compile(r"\s*([^=;]+?)\s*=\s*(\{(?:[^}]|\}\})*\}|[^;]*)")
_START = (
    "\nIs the server there, and running? apt-get install postgresql; systemctl start postgresql\n"
    "--admin says where it is, and who may make a role and a database on it"
)
_KINDS = {
    "sqlite": (("libsqlite3odbc.so", "sqlite3odbc.so"), "libsqliteodbc"),
    "postgresql": (("psqlodbcw.so",), "odbc-postgresql"),
}


class ToolError(Exception):
    """What the user has to be told, and can do something about."""


def find_driver(kind):
    """The library of SQLite's or PostgreSQL's ODBC driver. ToolError if it is not installed."""
    names, package = _KINDS[kind]
    for folder in _FOLDERS:
        for name in names:
            for path in sorted(glob.glob(f"{folder}/{name}")):
                return path
    raise ToolError(
        f"there is no ODBC driver for {kind}; install it: apt-get install unixodbc {package}\n"
        "or say where it is: --driver /path/to/the/library.so"
    )


def write_odbcinst(folder, library):
    """odbcinst.ini with the one driver, in a folder that is made if need be."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "odbcinst.ini").write_text(
        f"[{DRIVER}]\nDescription = {DRIVER}, by {Path(library).name}\nDriver = {library}\n"
        "Threading = 0\n"
    )
    return folder.resolve()


def fill(connection, say=print):
    """Make and fill the tables, in one transaction: they are whole, or as they were."""
    connection.autocommit = False
    cursor = connection.cursor()
    there = {row.table_name.lower() for row in cursor.tables(tableType="TABLE")}
    for name, statement in zip(("world", "fortune"), _TABLES, strict=True):
        if name in there:
            cursor.execute(f"DROP TABLE {name}")
        cursor.execute(statement)
    numbers = random.Random(1)
    worlds = [(number, numbers.randint(1, 10_000)) for number in range(WORLDS)]
    with _progress(len(worlds)) as progress:
        for start in range(0, len(worlds), _ROWS_AT_ONCE):
            some = worlds[start : start + _ROWS_AT_ONCE]
            # One statement for all of them: one for each, which executemany() makes, takes seconds.
            places = ", ".join(["(?, ?)"] * len(some))
            values = [value for row in some for value in row]
            cursor.execute(f"INSERT INTO world (id, randomNumber) VALUES {places}", values)
            progress.update(len(some))
    cursor.executemany(
        "INSERT INTO fortune (id, message) VALUES (?, ?)", list(enumerate(FORTUNES, 1))
    )
    connection.commit()
    connection.autocommit = True
    say(f"filled world ({WORLDS:,} rows) and fortune ({len(FORTUNES)} rows)")


def make_sqlite(connect, file, say=print):
    """The database file, filled. Readers and writers of it do not wait for each other (WAL)."""
    connection = connect(f"Driver={{{DRIVER}}};Database={Path(file).resolve()};JournalMode=WAL;")
    try:
        fill(connection, say)
    finally:
        connection.close()


def make_postgresql(connect, admin, say=print):
    """Role, database and tables on the server that the administrator's connection leads to."""
    settings = {"database": "postgres", **_settings(admin)}
    connection = connect(_string({**settings, "driver": f"{{{DRIVER}}}"}))
    try:
        _create(connection, f"CREATE ROLE {USER} LOGIN PASSWORD '{PASSWORD}'", "pg_roles", USER)
        _create(
            connection,
            f"CREATE DATABASE {DATABASE} OWNER {USER} ENCODING 'UTF8' TEMPLATE template0",
            "pg_database",
            DATABASE,
        )
    finally:
        connection.close()
    own = {**settings, "driver": f"{{{DRIVER}}}", "database": DATABASE, "uid": USER}
    own["pwd"] = PASSWORD
    connection = connect(_string(own))
    try:
        fill(connection, say)
    finally:
        connection.close()
    return _string({**own, "driver": f"{{{DRIVER}}}"})


def _create(connection, statement, table, name):
    """Unless it is there. Names are our own constants: nothing here comes from elsewhere."""
    column = {"pg_roles": "rolname", "pg_database": "datname"}[table]
    if connection.execute(f"SELECT 1 FROM {table} WHERE {column} = ?", name).fetchone() is None:
        connection.execute(statement)


def _settings(text):
    """`Name=value;...` as a dict with names in lower case. In braces, a value may have a `;`."""
    return {name.lower(): value.strip() for name, value in _SETTING.findall(text)}


def _string(settings):
    return "".join(f"{name}={value};" for name, value in settings.items())


def _progress(total):
    """A progress bar, if there is tqdm and somebody who looks."""
    try:
        from tqdm import tqdm
    except ImportError:
        import contextlib
        import types

        return contextlib.nullcontext(types.SimpleNamespace(update=lambda count: None))
    return tqdm(total=total, desc="world", unit=" rows", disable=not sys.stderr.isatty())


def _nothing(text):
    """Says nothing."""


def _odbc():
    """The module, which finds the drivers by ODBCSYSINI. ToolError if it cannot be had."""
    try:
        import pyodbc
    except ModuleNotFoundError:
        raise ToolError("pyodbc is not installed: pip install pyodbc") from None
    except ImportError as error:
        raise ToolError(f"pyodbc needs unixODBC: apt-get install unixodbc ({error})") from None
    return pyodbc


def _connect(text):
    pyodbc = _odbc()
    try:
        return pyodbc.connect(text, autocommit=True)
    except pyodbc.Error as error:
        shown = {**_settings(text), **({"pwd": "..."} if "pwd" in _settings(text) else {})}
        hint = _START if str(error.args[0]).startswith("08") else ""
        raise ToolError(f"cannot connect to {_string(shown)}: {_said(error)}{hint}") from None


def _said(error):
    """What a driver says, in one line."""
    return " ".join(str(error.args[-1]).split())


def _parser():
    parser = argparse.ArgumentParser(
        prog="python -m examples.tefb_db",
        description=__doc__.split("\n\n")[0],
        epilog="Then start TEFB as this says at its end, in the same folder.",
    )
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="sqlite|postgresql")
    for name, about in (
        ("sqlite", "embedded: a file, no server"),
        ("postgresql", "a server, on which an administrator may make a role and a database"),
    ):
        one = kinds.add_parser(name, help=about, description=about)
        one.add_argument(
            "--odbc",
            default="odbc",
            metavar="DIR",
            help="folder for odbcinst.ini (default: %(default)s)",
        )
        one.add_argument("--driver", metavar="FILE", help="the driver's library, if not found")
        if name == "sqlite":
            one.add_argument(
                "--file",
                default=DATABASE,
                help="the database; TEFB looks for %(default)s, where it is started",
            )
        else:
            one.add_argument(
                "--admin",
                default="Server=localhost;Uid=postgres;",
                metavar="STRING",
                help="how an administrator connects, with Pwd= and Port= as needed "
                "(default: %(default)r)",
            )
    return parser


def _make(options, say):
    """Everything; the folder of odbcinst.ini, and the string to connect with."""
    folder = write_odbcinst(options.odbc, options.driver or find_driver(options.kind))
    os.environ["ODBCSYSINI"] = str(folder)
    if "ODBCINSTINI" in os.environ:  # Another name for the file, which unixODBC would look for.
        os.environ["ODBCINSTINI"] = "odbcinst.ini"
    pyodbc = _odbc()
    try:
        if options.kind == "sqlite":
            make_sqlite(_connect, options.file, say)
            return folder, CONNECT
        return folder, make_postgresql(_connect, options.admin, say)
    except pyodbc.Error as error:
        raise ToolError(f"the database refuses: {_said(error)}") from None


def main(arguments=None, *, quiet=False):
    """The command; its exit code. ``quiet``: only errors are said."""
    options = _parser().parse_args(arguments)
    try:
        folder, connect = _make(options, _nothing if quiet else print)
    except (ToolError, OSError) as error:
        print(f"tefb_db: error: {error}", file=sys.stderr)
        return 1
    if quiet:
        return 0
    print("Now TEFB finds it:\n")
    print(f"  export ODBCSYSINI={folder}")
    if "ODBCINSTINI" in os.environ:
        print("  export ODBCINSTINI=odbcinst.ini")
    if _settings(connect) != _settings(CONNECT):
        print(f"  export TEFB_CONNECT='{connect}'")
    print(f"  python {os.path.relpath(Path(__file__).with_name('tefb.py'))}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
