"""TEFB and the wiki search at once, with what they need: the database, a dump, its index.

python -m examples.demo [--pages 10000] [--folder build/demo] [--tefb-port 8080] [--wiki-port 8081]

What takes time is made once, in the folder, and found there the next time.
"""

import argparse
import os
import sys
from pathlib import Path

import parallel

from examples import tefb_db
from examples.wiki import build, make_dump, titles


def options_of(arguments):
    parser = argparse.ArgumentParser(
        prog="python -m examples.demo", description=__doc__.split("\n\n")[0]
    )
    parser.add_argument("--folder", default="build/demo", help="default: %(default)s")
    parser.add_argument(
        "--pages", type=int, default=10_000, help="of the synthetic dump (default: %(default)s)"
    )
    parser.add_argument("--host", default="127.0.0.1", help="default: %(default)s")
    parser.add_argument("--tefb-port", type=int, default=8080, help="default: %(default)s")
    parser.add_argument("--wiki-port", type=int, default=8081, help="default: %(default)s")
    parser.add_argument("--cores", default=None, help="contexts (default: one on each core)")
    return parser.parse_args(arguments)


def prepare_wiki(folder, pages):
    """A dump of so many pages and its index, unless they are there."""
    dump = folder / f"dump-{pages}.xml"
    index = folder / f"index-{pages}"
    try:
        titles.read_manifest(index)
        if dump.is_file():
            return index
    except titles.IndexMissingError:
        pass
    print(f"making a dump of {pages:,} pages, and the index of its titles", flush=True)
    for command, arguments in (
        (make_dump.main, ["--pages", str(pages), "--seed", "1", "--output", str(dump)]),
        (build.main, [str(dump), "--output", str(index)]),
    ):
        code = command(arguments)
        if code:
            raise SystemExit(code)
    return index


def prepare_tefb(folder):
    """The SQLite database, where TEFB will look for it, and the driver by its name."""
    if not (folder / tefb_db.DATABASE).is_file():
        print("making TEFB's database", flush=True)
        code = tefb_db.main(
            ["sqlite", "--odbc", str(folder), "--file", str(folder / tefb_db.DATABASE)], quiet=True
        )
        if code:
            raise SystemExit(code)
    os.environ["ODBCSYSINI"] = str(folder)


def main(arguments=None):
    options = options_of(arguments)
    folder = Path(options.folder).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["WIKI_INDEX"] = str(prepare_wiki(folder, options.pages))
    prepare_tefb(folder)
    os.chdir(folder)  # TEFB's `Database=hello_world` is a file of this name here.
    sys.path.insert(0, str(Path(__file__).parent))
    from examples import tefb
    from examples.wiki import wiki

    for port, protocol in (
        (options.tefb_port, tefb.TefbHttpServer),
        (options.wiki_port, wiki.Wiki),
    ):
        parallel.register(transport=parallel.server(options.host, port), protocol=protocol)
    print(
        f"""
  TEFB         http://{options.host}:{options.tefb_port}/fortunes
               /json /plaintext /db /queries?queries=20 /updates?queries=20 /stats /elapsed
  wiki search  http://{options.host}:{options.wiki_port}/
               /wiki/TITLE /offsets/PREFIX /title/PREFIX /xml?range=0-99 /stats
""",
        flush=True,
    )
    parallel.run(cores=options.cores, threads=8)


if __name__ == "__main__":
    main()
