"""The wiki search serves a dump of ten thousand pages: every byte of it, and whatever is asked."""

from __future__ import annotations

import json
import os
import pathlib
import random
import re
import socket
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple
from urllib.parse import quote

import httpx
import pytest
import serving

from examples.wiki import make_dump

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(serving.PEER != "ppserver", reason="an API of ppserver"),
    # Not imported here: on a free-threaded build datrie would turn the GIL on.
    *(
        pytest.mark.skipif(not serving.is_installed(name), reason=f"{name} is not installed")
        for name in ("numpy", "datrie", "h11")
    ),
]

PAGES = 10_000
BEYOND = 5 << 30  # more than fits in 32 bits
PROGRAM = serving.ROOT / "examples" / "wiki" / "wiki.py"
NAMESPACE = "{http://www.mediawiki.org/xml/export-0.11/}"
# A free-threaded interpreter is to stay without its GIL.
GIL_OFF = {"PYTHON_GIL": "0"} if serving.FREE_THREADED else {}
PLACE = "threads" if serving.FREE_THREADED else "processes"


class Page(NamedTuple):
    title: str
    first: int  # byte of the dump, as is the last
    last: int
    data: bytes


class Site(NamedTuple):
    server: serving.Server
    dump: bytes
    pages: list[Page]


def read_pages(dump: bytes) -> list[Page]:
    """What is in a dump, found in another way than the index was made."""
    root = ElementTree.fromstring(dump)
    names = [page.findtext(f"{NAMESPACE}title", "") for page in root.iter(f"{NAMESPACE}page")]
    # Text is escaped in an export, so these lines are nowhere else.
    found = re.finditer(rb"(?<=\n  )<page>\n.*?\n  </page>(?=\n)", dump, re.DOTALL)
    pages = [(match.start(), match.end() - 1, match[0]) for match in found]
    return [Page(name, *page) for name, page in zip(names, pages, strict=True)]


def build(dump: pathlib.Path, *arguments: str) -> None:
    line = [sys.executable, "-m", "examples.wiki.build", str(dump), "--quiet", *arguments]
    subprocess.run(line, check=True, env=serving._environment(dump.parent, GIL_OFF))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A dump and its index, which nobody changes."""
    folder = tmp_path_factory.mktemp("wiki")
    dump = folder / "dump.xml"
    arguments = ["--pages", str(PAGES), "--seed", "5", "--output", str(dump), "--quiet"]
    assert make_dump.main(arguments) == 0
    build(dump, "--output", str(folder / "index"))
    return folder


def launch(directory: pathlib.Path, env: dict[str, str], *, contexts: int = 2) -> serving.Server:
    args = ["--app-dir", str(PROGRAM.parent), "--bind", "127.0.0.1:0", "--no-access-log"]
    if serving.FREE_THREADED:
        args += ["--gil", "off"]
    return serving.launch(
        PROGRAM.name, directory, contexts=contexts, place=PLACE, args=args, env=env
    )


@pytest.fixture(scope="module")
def site(folder: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    dump = (folder / "dump.xml").read_bytes()
    environ = {"WIKI_INDEX": str(folder / "index")}
    with serving.stopping(launch(tmp_path_factory.mktemp("site"), environ)) as server:
        server.wait_started()
        yield Site(server, dump, read_pages(dump))


@pytest.fixture(scope="module")
def client(site: Site) -> Iterator[httpx.Client]:
    with serving.client(site.server.url) as client:
        yield client


def raw(server: serving.Server, data: bytes) -> tuple[int, bytes]:
    """The status and the body of one answer to whatever bytes, and the connection's end."""
    with server.connect() as sock, sock.makefile("rb") as stream:
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        head, _, body = stream.read().partition(b"\r\n\r\n")
    return int(head.split()[1]), body


def path_of(title: str, route: str = "wiki") -> str:
    return f"/{route}/{quote(title, safe='')}"


# ---- pages ----


def fetch(site: Site, pages: Sequence[Page]) -> list[bytes]:
    """Pages by title on one connection, sixteen questions ahead."""
    bodies = []
    with site.server.connect(30) as sock, sock.makefile("rb") as stream:
        for start in range(0, len(pages), 16):
            some = pages[start : start + 16]
            lines = (f"GET {path_of(page.title)} HTTP/1.1\r\nHost: x\r\n\r\n" for page in some)
            sock.sendall("".join(lines).encode())
            for page in some:
                assert stream.readline() == b"HTTP/1.1 200 OK\r\n", page.title
                fields = {}
                while (line := stream.readline()) != b"\r\n":
                    name, _, value = line.partition(b": ")
                    fields[name] = value.rstrip()
                assert fields[b"Content-Type"] == b"application/xml; charset=utf-8"
                assert b"Content-Range" not in fields
                bodies.append(stream.read(int(fields[b"Content-Length"])))
    return bodies


def test_every_page_is_the_dumps_bytes(site: Site) -> None:
    pages = random.Random(3).sample(site.pages, PAGES)
    assert {site.pages[0], site.pages[-1]} <= {*pages}
    assert len({character for page in pages for character in page.title if character > "~"}) > 300
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda part: fetch(site, part), [pages[n::8] for n in range(8)]))
    for number, bodies in enumerate(answers):
        for page, body in zip(pages[number::8], bodies, strict=True):
            assert body == page.data
            element = ElementTree.fromstring(body)
            assert [found.findtext("title") for found in element.iter("page")] == [page.title]


def test_first_and_last_page(site: Site, client: httpx.Client) -> None:
    for page in (site.pages[0], site.pages[-1]):
        answer = client.get(path_of(page.title))
        assert answer.status_code == 200
        assert answer.content == page.data
        head = client.head(path_of(page.title))
        assert head.status_code == 200
        assert head.headers["content-length"] == str(len(page.data))


def test_a_page_is_not_sent_again(site: Site, client: httpx.Client) -> None:
    path = path_of(site.pages[7].title)
    tag = client.get(path).headers["etag"]
    answer = client.get(path, headers={"If-None-Match": tag})
    assert (answer.status_code, answer.content) == (304, b"")
    # A range within a page is not advertised, and not served.
    ranged = client.get(path, headers={"Range": "bytes=0-3"})
    assert (ranged.status_code, ranged.content) == (200, site.pages[7].data)
    assert "accept-ranges" not in ranged.headers


def test_a_lower_cased_title_is_an_alias(site: Site, client: httpx.Client) -> None:
    by_lower: dict[str, list[Page]] = {}
    for page in site.pages:
        by_lower.setdefault(page.title.lower(), []).append(page)
    exact = {page.title for page in site.pages}
    lower = [name for name in by_lower if name not in exact]
    for name in [*random.Random(1).sample(lower, 100), "main page", "ac/dc"]:
        assert client.get(path_of(name)).content in [page.data for page in by_lower[name]]


@pytest.mark.parametrize("title", ["No such page", "Main Page ", "MAIN PAGE", "Main", "%zz", "é"])
def test_what_is_no_title(client: httpx.Client, title: str) -> None:
    assert client.get(path_of(title)).status_code == 404


def test_titles_with_slashes_need_no_escape(site: Site, client: httpx.Client) -> None:
    assert client.get("/wiki/AC/DC").content == client.get("/wiki/AC%2FDC").content


# ---- titles ----


def prefixes(site: Site, count: int, of: Callable[[str], str] = str) -> list[str]:
    rng = random.Random(11)
    found = [of(page.title)[: rng.randint(3, 8)] for page in rng.sample(site.pages, count)]
    return [text for text in found if len(text) >= 3]


def test_prefixes_equal_a_linear_scan(site: Site, client: httpx.Client) -> None:
    # UTF-8 has the order of code points.
    ordered = sorted(site.pages)
    some = [*prefixes(site, 150), "The ", "...", '"He', "199", "zzz", "main", "\U0010fffd" * 3]
    longest = 0
    for prefix in some:
        expected = [page for page in ordered if page.title.startswith(prefix)]
        rows = [[page.title, page.first, page.last] for page in expected]
        longest = max(longest, len(rows))
        assert client.get(path_of(prefix, "offsets")).json() == rows
        assert client.get(path_of(prefix, "offsets") + "?limit=2").json() == rows[:2]
        assert client.get(path_of(prefix, "title")).json() == [page.title for page in expected]
    assert longest > 50


def test_prefixes_whatever_the_case(site: Site, client: httpx.Client) -> None:
    folded = [(page.title.lower(), page) for page in site.pages]
    for prefix in [*prefixes(site, 60, str.lower), "199", "ac/", "zzz"]:
        expected = {
            (page.title, page.first, page.last)
            for lower, page in folded
            if lower.startswith(prefix.lower()) or page.title.startswith(prefix)
        }
        answer = client.get(path_of(prefix, "offsets") + "?case=any").json()
        assert len(answer) == len(expected)
        assert {tuple(row) for row in answer} == expected


@pytest.mark.parametrize("limit", [0, 1, 3, 10**30])
def test_limits(site: Site, client: httpx.Client, limit: int) -> None:
    expected = sorted(page.title for page in site.pages if page.title.startswith("Th"))[:limit]
    assert client.get(f"/title/Th?limit={limit}").json() == expected


# ---- the dump by ranges ----


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("0-0", slice(0, 1)),
        ("0-99", slice(0, 100)),
        ("1000000-1999999", slice(1_000_000, 2_000_000)),
        ("777-777", slice(777, 778)),
        ("9000000-", slice(9_000_000, None)),
        ("-1", slice(-1, None)),
        ("-5000", slice(-5000, None)),
        ("-99999999999", slice(None)),
        ("9000000-99999999999", slice(9_000_000, None)),
    ],
)
def test_a_range_is_a_slice(site: Site, client: httpx.Client, text: str, part: slice) -> None:
    size = len(site.dump)
    first, last, _ = part.indices(size)
    for options in ({"headers": {"Range": f"bytes={text}"}}, {"params": {"range": text}}):
        answer = client.get("/xml", **options)
        assert answer.status_code == 206
        assert answer.content == site.dump[part]
        assert answer.headers["content-range"] == f"bytes {first}-{last - 1}/{size}"


@pytest.mark.parametrize("text", ["{size}-", "{size}-{size}", "99999999999-", "-0"])
def test_a_range_outside(site: Site, client: httpx.Client, text: str) -> None:
    size = len(site.dump)
    answer = client.get("/xml", headers={"Range": "bytes=" + text.format(size=size)})
    assert answer.status_code == 416
    assert answer.headers["content-range"] == f"bytes */{size}"


def test_what_offsets_says_is_a_range_of_the_dump(site: Site, client: httpx.Client) -> None:
    for title, first, last in client.get("/offsets/Mai").json():
        page = client.get("/xml", headers={"Range": f"bytes={first}-{last}"}).content
        assert page == client.get(path_of(title)).content


@pytest.fixture
def far(folder: pathlib.Path, tmp_path: pathlib.Path) -> tuple[int, list[Page], pathlib.Path]:
    """The same pages with five gigabytes of nothing in their midst; the compact index."""
    import numpy as np

    dump = (folder / "dump.xml").read_bytes()
    pages = read_pages(dump)
    middle = len(pages) // 2
    build(folder / "dump.xml", "--output", str(tmp_path), "--compact")
    with open(tmp_path / "dump.xml", "wb") as file:
        file.write(dump[: pages[middle].first])
        file.seek(BEYOND, os.SEEK_CUR)
        file.write(dump[pages[middle].first :])
    # Its trie has indices, so that the offsets can be moved.
    offsets = np.load(tmp_path / "titles_offsets.npy")
    offsets[middle:] += np.uint64(BEYOND)
    np.save(tmp_path / "titles_offsets.npy", offsets)
    manifest = json.loads((tmp_path / "index.json").read_bytes())
    manifest["dump_bytes"] += BEYOND
    (tmp_path / "index.json").write_text(json.dumps(manifest))
    return middle, pages, tmp_path


def test_beyond_four_gigabytes(far: tuple[int, list[Page], pathlib.Path]) -> None:
    middle, pages, folder = far
    server = launch(folder, {"WIKI_INDEX": str(folder)}, contexts=1)
    try:
        server.wait_started()
        with serving.client(server.url) as client:
            for page in (pages[0], pages[middle], pages[middle + 17], pages[-1]):
                assert client.get(path_of(page.title)).content == page.data
            page = pages[-1]
            first, last = page.first + BEYOND, page.last + BEYOND
            answer = client.get("/xml", headers={"Range": f"bytes={first}-{last}"})
            assert (answer.status_code, answer.content) == (206, page.data)
            assert [page.title, first, last] in client.get(
                path_of(page.title[:3], "offsets")
            ).json()
            around = client.get("/xml", params={"range": f"{BEYOND}-{BEYOND + 9}"})
            assert around.content == bytes(10)
            # The page before the gap, which nobody wants to read.
            head = client.head(path_of(pages[middle - 1].title))
            assert int(head.headers["content-length"]) > BEYOND
        server.stop()
    finally:
        server.kill()


# ---- the other routes ----


def test_constants(client: httpx.Client) -> None:
    assert client.get("/json").json() == {"message": "Hello, World!"}
    plain = client.get("/plaintext")
    assert plain.text == "Hello, World!"
    assert plain.headers["content-type"] == "text/plain; charset=utf-8"
    assert client.get("/hello").json() == {"args": [], "kwds": {}}
    called = {"args": ["ä/b"], "kwds": {"x": "1"}}
    assert client.get("/hello/%C3%A4/b?x=1").json() == called
    assert client.get("/elapsed").json()["elapsed"] > 0


def test_stats(site: Site, client: httpx.Client) -> None:
    stats = client.get("/stats").json()
    assert stats["system"]["page_size"] == os.sysconf("SC_PAGE_SIZE")
    assert stats["server"]["num_children"] >= 1
    assert stats["contexts"]["active_contexts"] >= 1
    for part in stats:
        assert client.get(f"/stats/{part}").json().keys() == {part}
    assert client.get("/stats/nothing").status_code == 404


def test_the_search_page_trusts_nobody(client: httpx.Client) -> None:
    page = client.get("/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "script-src 'self'" in page.headers["content-security-policy"]
    for name, kind in (("page.css", "text/css"), ("page.js", "text/javascript")):
        assert f'"/{name}"' in page.text
        assert client.get(f"/{name}").headers["content-type"] == f"{kind}; charset=utf-8"


# ---- bad input ----

GET = "GET {} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{}\r\n"


def get(path: str, *fields: str) -> bytes:
    return GET.format(path, "".join(f"{field}\r\n" for field in fields)).encode("latin-1")


BAD = {
    "unknown method": (b"BREW / HTTP/1.1\r\nHost: x\r\n\r\n", 501),
    "unknown method of a page": (b"BREW /wiki/A HTTP/1.1\r\nHost: x\r\n\r\n", 501),
    "POST": (b"POST /wiki/A HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", 405),
    "DELETE": (b"DELETE /xml HTTP/1.1\r\nHost: x\r\n\r\n", 405),
    "CONNECT": (b"CONNECT x:80 HTTP/1.1\r\nHost: x:80\r\n\r\n", 501),
    "no HTTP": (b"\x16\x03\x01\r\n\r\n", 400),
    "no Host": (b"GET /wiki/A HTTP/1.1\r\n\r\n", 400),
    "other version": (b"GET / HTTP/3.0\r\nHost: x\r\n\r\n", 505),
    "NUL": (get("/wiki/a%00b"), 400),
    "NUL alone": (get("/wiki/%00"), 400),
    "NUL by query": (get("/wiki?name=a%00b"), 400),
    "NUL in a prefix": (get("/offsets?name=abc%00"), 400),
    "no UTF-8": (get("/wiki/%FF%FE"), 400),
    "half a character": (get("/offsets/abc%C3"), 400),
    "a surrogate": (get("/title/%ED%A0%80"), 400),
    "too long UTF-8": (get("/wiki/%C0%AF"), 400),
    "no UTF-8 in the query": (get("/offsets/abc?limit=%FF"), 400),
    "raw bytes": (get("/wiki/\xff\xfe"), 400),
    "dots": (get("/wiki/.."), 404),
    "more dots": (get("/wiki/../../../../etc/passwd"), 404),
    "dots at the root": (get("/../index.json"), 404),
    "escaped dots": (get("/%2e%2e%2f%2e%2e%2fetc%2fpasswd"), 404),
    "the program": (get("/wiki.py"), 404),
    "the index": (get("/index.json"), 404),
    "no title": (get("/wiki/"), 400),
    "no title at all": (get("/wiki"), 400),
    "an empty title": (get("/wiki?name="), 404),
    "no prefix": (get("/offsets/"), 400),
    "no beginning": (get("/title"), 400),
    "a short prefix": (get("/offsets/ab"), 400),
    "two characters, four bytes": (get("/offsets/%C3%A9%C3%A9"), 400),
    "a limit of letters": (get("/offsets/abc?limit=many"), 400),
    "a limit below": (get("/offsets/abc?limit=-1"), 400),
    "no limit": (get("/title/abc?limit="), 400),
    "a limit of 5000 digits": (get("/title/abc?limit=" + "9" * 5000), 400),
    "another case": (get("/offsets/abc?case=upper"), 400),
    "no range": (get("/xml"), 400),
    "no range of bytes": (get("/xml", "Range: lines=1-2"), 400),
    "a range of letters": (get("/xml", "Range: bytes=a-b"), 400),
    "a range backwards": (get("/xml", "Range: bytes=9-5"), 400),
    "an empty range": (get("/xml", "Range: bytes=-"), 400),
    "several ranges": (get("/xml", "Range: bytes=0-1,4-5"), 400),
    "a broken ?range": (get("/xml?range=1"), 400),
    "an endless number": (get("/xml", "Range: bytes=" + "9" * 300 + "-"), 400),
    "a huge query": (get("/offsets/abc?" + "x=1&" * 4000), 414),
    "a huge title": (get("/wiki/" + "a" * 100_000), 414),
    "a long title": (get("/wiki/" + "a" * 8000), 404),
    "a long prefix": (get("/offsets/" + "%20" * 2600), 200),
    "many arguments": (get("/hello?" + "&".join(f"a{n}=1" for n in range(1000))), 200),
    "a name twice": (get("/wiki/Nothing?name=x&name=y&self=1&request=2"), 404),
    "a huge field": (get("/xml", "Range: bytes=" + "0" * 100_000), 431),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(site: Site, name: str) -> None:
    data, status = BAD[name]
    found, body = raw(site.server, data)
    assert found == status
    assert b"Traceback" not in body
    assert b".py" not in body
    # And it goes on.
    assert raw(site.server, get("/plaintext")) == (200, b"Hello, World!")


# ---- how it starts ----


def program(
    line: list[str], directory: pathlib.Path, started: list[serving.Server], **env: str
) -> serving.Server:
    environ = {"PPSERVER_BIND": "127.0.0.1:0", "PPSERVER_CORES": "1", **GIL_OFF, **env}
    server = serving.Server(
        [sys.executable, *line], serving._environment(directory, environ), directory
    )
    started.append(server)
    return server


@pytest.mark.parametrize("way", ["file", "module", "environment"])
def test_ways_to_start(folder: pathlib.Path, started: list[serving.Server], way: str) -> None:
    line, directory, env = [str(PROGRAM), "index"], folder, {}
    if way == "module":
        line, directory = ["-m", "examples.wiki.wiki"], folder / "index"
    elif way == "environment":
        line, env = [str(PROGRAM)], {"WIKI_INDEX": "index", "WIKI_DUMP": str(folder / "dump.xml")}
    server = program(line, directory, started, **env)
    server.wait_started()
    answer = serving.get(f"{server.url}/title/Main%20Pag")
    assert answer.json() == ["Main Page"]
    server.stop()


def failure(server: serving.Server) -> str:
    assert server.wait() == 1
    assert "Traceback" not in server.log
    return server.log


def test_no_index(tmp_path: pathlib.Path, started: list[serving.Server]) -> None:
    log = failure(program([str(PROGRAM)], tmp_path, started))
    assert "error: . holds no index; make it with: python -m examples.wiki.build DUMP.xml" in log


def test_no_index_by_ppserver(tmp_path: pathlib.Path, started: list[serving.Server]) -> None:
    started.append(launch(tmp_path, {"WIKI_INDEX": str(tmp_path)}))
    assert started[-1].wait() != 0
    assert f"{tmp_path} holds no index; make it with: python -m examples" in started[-1].log


def copy_index(folder: pathlib.Path, to: pathlib.Path, **changes: Any) -> None:
    for path in (folder / "index").iterdir():
        (to / path.name).write_bytes(path.read_bytes())
    manifest = json.loads((to / "index.json").read_bytes()) | changes
    (to / "index.json").write_text(json.dumps(manifest))


def test_no_dump(
    folder: pathlib.Path, tmp_path: pathlib.Path, started: list[serving.Server]
) -> None:
    copy_index(folder, tmp_path, packed=True)
    log = failure(program([str(PROGRAM)], tmp_path, started))
    assert f"error: there is no dump dump.xml in {tmp_path}" in log
    assert "WIKI_DUMP says where it is; unpack it first: bunzip2 --keep dump.xml.bz2" in log


def test_another_dump(
    folder: pathlib.Path, tmp_path: pathlib.Path, started: list[serving.Server]
) -> None:
    copy_index(folder, tmp_path)
    (tmp_path / "dump.xml").write_bytes(b"<mediawiki>")
    log = failure(program([str(PROGRAM)], tmp_path, started))
    assert "dump.xml has changed since its index was made; build the index again" in log
