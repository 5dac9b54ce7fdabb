"""The wiki search: all titles in one trie, every page sent from the dump by its byte range.

    python -m examples.wiki.wiki [INDEX]      (or: python examples/wiki/wiki.py [INDEX])
    ppserver examples/wiki/wiki.py --cores all

Open http://127.0.0.1:8080/ and type. The index, which `python -m examples.wiki.build` makes, is
loaded once, before contexts start, and every core reads it. Its folder is INDEX, or WIKI_INDEX in
the environment, or the current directory; the dump is there or one above, or where WIKI_DUMP says.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import datrie
import parallel
from ctk.util import try_int
from parallel.http.server import (
    HttpServer,
    RangedRequest,
    Request,
    html_response,
    json_serialization,
    route,
    text_serialization,
)

if not __package__:  # run as a file: what holds examples/ is not on the path
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from examples.wiki import scan
from examples.wiki.titles import Index, IndexMissingError, from_key, load, page_range, to_key

PREFIX_MIN = 3  # characters; with fewer, /offsets would list a good part of the wiki
XML = "application/xml; charset=utf-8"
CSS = "text/css; charset=utf-8"
JAVASCRIPT = "text/javascript; charset=utf-8"

# What a dump or the search page holds is never to be run as a script of this site.
NO_SNIFFING = ("X-Content-Type-Options", "nosniff")
ARTICLE_POLICY = ("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
PAGE_POLICY = (
    "Content-Security-Policy",
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
)


def index_folder() -> Path:
    """Where the index is. Arguments count only when this is the program that was started."""
    is_program = bool(sys.argv[0]) and os.path.abspath(sys.argv[0]) == os.path.abspath(__file__)
    if is_program and len(sys.argv) > 1:
        return Path(sys.argv[1])
    return Path(os.environ.get("WIKI_INDEX") or ".")


def find_dump(folder: Path, manifest: dict[str, Any]) -> Path:
    """The dump that an index was made of. Raises IndexMissingError if it is not there as it was."""
    name = manifest["dump"]
    given = os.environ.get("WIKI_DUMP")
    here = folder.absolute()
    for path in [Path(given)] if given else [here / name, here.parent / name]:
        try:
            size = path.stat().st_size
        except OSError:
            continue
        if size != manifest["dump_bytes"]:
            raise IndexMissingError(
                f"{path} has changed since its index was made; build the index again: "
                f"python -m examples.wiki.build {path}"
            )
        return path.absolute()
    where = given or f"{name} in {here} or in {here.parent}"
    packed = f"; unpack it first: bunzip2 --keep {name}.bz2" if manifest["packed"] else ""
    raise IndexMissingError(f"there is no dump {where}; WIKI_DUMP says where it is{packed}")


def load_all(folder: Path) -> tuple[Index, Path]:
    """The index in memory, and where its dump is. Raises IndexMissingError."""
    # Millions of lists come, none goes: looking through them for cycles finds nothing.
    collecting = gc.isenabled()
    gc.disable()
    try:
        index = load(folder)
    finally:
        if collecting:
            gc.enable()
    return index, find_dump(folder, index.manifest)


try:
    index, wiki_xml = load_all(index_folder())
except IndexMissingError as error:
    if __name__ != "__main__":
        raise
    sys.exit(f"error: {error}")

# Loaded once; all contexts read them.
offsets = index.offsets
titles = index.titles
dump_fd = os.open(wiki_xml, os.O_RDONLY | os.O_CLOEXEC)  # read by position only, so it is shared
compact = index.manifest["compact"]

PAGE, STYLE, SCRIPT = (
    Path(__file__).with_name(name).read_text("utf-8")
    for name in ("page.html", "page.css", "page.js")
)


def positions(found: Any) -> list[int]:
    """What the trie has for a key, as offsets; the compact one has an index into them."""
    return [int(offsets[found])] if compact else found


def keys_from(prefix: str) -> Iterator[tuple[str, list[int]]]:
    """The keys that begin so, with their offsets, in order. One at a time, since a limit may end
    it: a prefix of three letters can have half a million."""
    state = (datrie.BaseState if compact else datrie.State)(titles)
    if not state.walk(prefix):
        return
    found = (datrie.BaseIterator if compact else datrie.Iterator)(state)
    while found.next():
        yield prefix + found.key(), positions(found.data())


def titles_from(prefix: str) -> Iterator[tuple[str, int]]:
    """The titles that begin so, and their offsets."""
    for key, found in keys_from(to_key(prefix)):
        for offset in found:
            if offset > 0:  # not an alias
                yield from_key(key), offset


def pages_from(prefix: str) -> Iterator[tuple[str, int]]:
    """The same, whatever the case: those with just this beginning first, each page once."""
    seen = set()
    for beginning in dict.fromkeys((prefix, prefix.lower())):
        for key, found in keys_from(to_key(beginning)):
            for offset in found:
                page = abs(offset)
                if page not in seen:
                    seen.add(page)
                    yield from_key(key) if offset > 0 else title_at(page), page


def title_at(offset: int) -> str:
    """The title of the page with this offset, from the dump."""
    line = os.pread(dump_fd, scan.TITLE_BYTES_MAX, offset)
    return scan.unescape(line[len(scan.TITLE) : line.index(scan.TITLE_END)], offset)


def offset_of(title: str) -> int | None:
    """The offset of a page by its exact title or by that of an alias; None if there is none.

    Raises ValueError for what no title can be.
    """
    found = titles.get(to_key(title))
    return None if found is None else abs(positions(found)[0])


def with_ranges(found: Iterable[tuple[str, int]]) -> list[tuple[str, int, int]]:
    return [(title, *page_range(offsets, offset)) for title, offset in found]


def alone(found: Iterable[tuple[str, int]]) -> list[str]:
    return [title for title, _ in found]


class Wiki(HttpServer):
    """The routes. Other paths are 404: the current directory is not for everybody."""

    @route
    def wiki(self, request: Request, name: str) -> Request:
        """A page: the element as it stands in the dump, by title."""
        try:
            offset = offset_of(name)
        except ValueError:
            return self.error(request, 400, "this can be no title")
        if offset is None:
            return self.error(request, 404, "there is no page of this title")
        first, last = page_range(offsets, offset)
        request.range = RangedRequest(f"{first}-{last}")
        request.response.content_type = XML
        self.sendfile(request, wiki_xml)
        response = request.response
        if response.code == 206:
            # The client asked for a page, and gets all of it. 206 answers only those who have sent
            # a Range (RFC 9110 section 15.3.7); which part of which file this is, is our affair.
            # A Range within a page is not served, as section 14.2 allows, and not advertised.
            response.code, response.content_range = 200, None
        response.other_headers = [NO_SNIFFING, ARTICLE_POLICY]
        return request

    @route
    def offsets(
        self, request: Request, name: str, limit: str | None = None, case: str = "exact"
    ) -> Request:
        """``[[title, first byte, last byte], ...]`` of the titles that begin so, in order.

        ``limit``: how many at most. ``case=any``: those that differ in case as well.
        """
        if len(name) < PREFIX_MIN:
            return self.error(request, 400, f"a prefix has {PREFIX_MIN} characters at least")
        if case not in ("exact", "any"):
            return self.error(request, 400, "case is exact or any")
        find = pages_from if case == "any" else titles_from
        return self.found(request, find, name, limit, with_ranges)

    @route
    def title(self, request: Request, name: str, limit: str | None = None) -> Request:
        """``[title, ...]`` of the titles that begin so, in order."""
        return self.found(request, titles_from, name, limit, alone)

    def found(
        self, request: Request, find: Any, name: str, limit: str | None, shown: Any
    ) -> Request:
        most = sys.maxsize if limit is None else try_int(limit)
        if most is None or most < 0:
            return self.error(request, 400, "limit is a number")
        try:
            to_key(name)
        except ValueError:
            return self.error(request, 400, "no title can begin so")
        return json_serialization(request, shown(islice(find(name), min(most, sys.maxsize))))

    @route
    def xml(self, request: Request) -> Request:
        """The dump, by ranges only: nobody wants all of it by mistake."""
        if request.range is None:
            return self.error(request, 400, "a range is needed: Range: bytes=0-99, or ?range=0-99")
        request.response.content_type = XML
        request.response.other_headers = [NO_SNIFFING, ARTICLE_POLICY]
        return self.sendfile(request, wiki_xml)

    @route
    def stats(self, request: Request, part: str | None = None) -> Request:
        """Numbers of the machine, this server, its memory, its contexts; or one part of them."""
        transport = request.transport
        stats: dict[str, Any] = {
            "system": dict(parallel.sys_stats()),
            "server": dict(parallel.socket_stats(transport.parent)),
            "memory": dict(parallel.memory_stats()),
            "contexts": dict(parallel.context_stats()),
            "elapsed": transport.elapsed(),
            "thread": parallel.thread_seq_id(),
        }
        if part is None:
            return json_serialization(request, stats)
        if part not in stats:
            return self.error(request, 404, f"parts are {', '.join(stats)}")
        return json_serialization(request, {part: stats[part]})

    @route
    def hello(self, request: Request, *args: str, **kwds: str) -> Request:
        """What a handler is called with."""
        return json_serialization(request, {"args": args, "kwds": kwds})

    @route
    def elapsed(self, request: Request) -> Request:
        """Seconds that this connection has been there for."""
        return json_serialization(request, {"elapsed": request.transport.elapsed()})

    @route
    def json(self, request: Request) -> Request:
        return json_serialization(request, {"message": "Hello, World!"})

    @route
    def plaintext(self, request: Request) -> Request:
        return text_serialization(request, "Hello, World!")

    @route("/")
    def page(self, request: Request) -> Request:
        """The search page."""
        request.response.other_headers = [NO_SNIFFING, PAGE_POLICY]
        return html_response(request, PAGE)

    @route("/page.css")
    def style(self, request: Request) -> Request:
        return self.response(request, body=STYLE, content_type=CSS)

    @route("/page.js")
    def script(self, request: Request) -> Request:
        return self.response(request, body=SCRIPT, content_type=JAVASCRIPT)

    def do_GET(self, request: Request) -> Request:  # noqa: N802  http.server's name
        return self.error(request, 404)


if __name__ == "__main__":
    server = parallel.server("127.0.0.1", 8080)
    parallel.register(transport=server, protocol=Wiki)
    parallel.run()
