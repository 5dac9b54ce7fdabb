"""The wiki search's tools: a synthetic dump is a real export, and its index leads to every page."""

from __future__ import annotations

import bz2
import contextlib
import io
import itertools
import json
import os
import pathlib
import random
import resource
import signal
import subprocess
import sys
import sysconfig
import unicodedata
import xml.etree.ElementTree as ElementTree
from collections import defaultdict
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

if sysconfig.get_config_var("Py_GIL_DISABLED"):
    pytest.skip("importing datrie turns the GIL on, with a warning", allow_module_level=True)
np = pytest.importorskip("numpy")
datrie = pytest.importorskip("datrie")

from examples.wiki import build, make_dump, progress, scan, titles  # noqa: E402, see above

PAGES = 3000
ROOT = pathlib.Path(build.__file__).parents[2]
NAMESPACE = "{http://www.mediawiki.org/xml/export-0.11/}"


class Wiki(NamedTuple):
    folder: pathlib.Path
    dump: bytes
    names: list[str]  # of all pages, in order, as an XML parser reads them
    index: titles.Index


def make(path: pathlib.Path, *arguments: str, pages: int = 40) -> pathlib.Path:
    status = make_dump.main(["--pages", str(pages), "--output", str(path), "--quiet", *arguments])
    assert status == 0
    return path


def names_of(dump: bytes) -> list[str]:
    root = ElementTree.parse(io.BytesIO(dump)).getroot()
    return [page.findtext(f"{NAMESPACE}title", "") for page in root.iter(f"{NAMESPACE}page")]


@pytest.fixture(scope="module")
def wiki(tmp_path_factory: pytest.TempPathFactory) -> Wiki:
    folder = tmp_path_factory.mktemp("wiki")
    dump = make(folder / "dump.xml", "--seed", "7", pages=PAGES)
    assert build.main([str(dump), "--quiet"]) == 0
    content = dump.read_bytes()
    return Wiki(folder, content, names_of(content), titles.load(folder))


@pytest.fixture(scope="module")
def small_dump(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return make(tmp_path_factory.mktemp("small") / "dump.xml").read_bytes()


@pytest.fixture
def small(tmp_path: pathlib.Path, small_dump: bytes) -> pathlib.Path:
    path = tmp_path / "dump.xml"
    path.write_bytes(small_dump)
    return path


def listing(folder: pathlib.Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


# Keys.


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])))
def test_a_key_leads_back_to_its_title(title: str) -> None:
    key = titles.to_key(title)
    assert titles.from_key(key) == title
    assert set(key) <= set(titles.ALPHABET)


@given(st.text(st.characters(max_codepoint=0x7F, exclude_characters="\0")))
def test_an_ascii_title_is_its_own_key(title: str) -> None:
    assert titles.to_key(title) == title


def test_keys_have_the_order_of_code_points() -> None:
    some = ["", "A", "AB", "a", "é", "Ω", "語", "\uffff", "𐐀", "👩‍🔬"]
    assert sorted(some, key=titles.to_key) == sorted(some)


@pytest.mark.parametrize("title", ["a\0b", "\ud800"])
def test_what_is_no_title_has_no_key(title: str) -> None:
    with pytest.raises(ValueError):
        titles.to_key(title)


@pytest.mark.parametrize("key", ["\xff", "é", "語"])
def test_what_is_no_key_has_no_title(key: str) -> None:
    with pytest.raises(ValueError):
        titles.from_key(key)


def test_a_trie_holds_every_character_of_the_alphabet(tmp_path: pathlib.Path) -> None:
    trie = titles.new_trie()
    for character in titles.ALPHABET:
        trie[character * 2] = [ord(character)]
    trie.save(str(tmp_path / "t"))
    read = datrie.Trie.load(str(tmp_path / "t"))
    assert read.items() == [(c * 2, [ord(c)]) for c in titles.ALPHABET]


# The dump.


def test_titles_are_unlike_and_as_long_as_they_may_be(wiki: Wiki) -> None:
    assert len(wiki.names) == len(set(wiki.names)) == PAGES
    assert max(len(name.encode()) for name in wiki.names) == make_dump.TITLE_BYTES
    assert all(unicodedata.is_normalized("NFC", name) for name in wiki.names)


def test_titles_are_of_many_scripts(wiki: Wiki) -> None:
    characters = {c for name in wiki.names for c in name if not c.isascii()}
    assert len(characters) > 300
    scripts = {unicodedata.name(c, "?").split()[0] for c in characters}
    assert scripts >= {"LATIN", "GREEK", "CYRILLIC", "HEBREW", "ARABIC", "DEVANAGARI", "HANGUL"}
    assert max(characters) > "\uffff"


def test_titles_differ_in_case_alone_and_hold_entities(wiki: Wiki) -> None:
    lower = [name.lower() for name in wiki.names]
    assert len(set(lower)) < len(lower) - 50
    for reference in (b"&amp;", b"&quot;", b"&#039;", b"&amp;amp;"):
        assert any(
            reference in line for line in wiki.dump.split(b"\n") if line.startswith(b"    <title>")
        )


@pytest.mark.slow
def test_titles_of_another_seed_and_more_pages_are_unlike() -> None:
    pages = list(zip(make_dump.titles(random.Random(5)), range(150_000), strict=False))
    assert len({page.title for page, _ in pages}) == 150_000
    redirects = sum(bool(page.target) for page, _ in pages)
    assert 0.38 < redirects / 150_000 < 0.42


@pytest.mark.slow
def test_pages_have_what_the_schema_wants(wiki: Wiki) -> None:
    root = ElementTree.fromstring(wiki.dump)
    names = set(wiki.names)
    known = dict.fromkeys(make_dump.NAMESPACES.values(), True)
    last_id = redirects = 0
    lengths = []
    assert root.get("version") == "0.11"
    for page in root.iter(f"{NAMESPACE}page"):
        tags = [child.tag.removeprefix(NAMESPACE) for child in page]
        assert tags in (
            ["title", "ns", "id", "revision"],
            ["title", "ns", "id", "redirect", "revision"],
        )
        redirect = page.find(f"{NAMESPACE}redirect")
        if redirect is not None:
            redirects += 1
            assert redirect.get("title") in names
        number = int(page.findtext(f"{NAMESPACE}id", ""))
        assert number > last_id
        last_id = number
        name = page.findtext(f"{NAMESPACE}title", "")
        space = make_dump.NAMESPACES[int(page.findtext(f"{NAMESPACE}ns", ""))]
        assert space in known
        assert not space or name.startswith(space + ":")
        text = page.find(f"{NAMESPACE}revision/{NAMESPACE}text")
        assert text is not None
        content = (text.text or "").encode()
        assert int(text.get("bytes", "")) == len(content)
        assert text.get("sha1", "").encode() == make_dump.sha1(content)
        assert page.findtext(f"{NAMESPACE}revision/{NAMESPACE}sha1") == text.get("sha1")
        lengths.append(len(content))
    assert 0.35 < redirects / PAGES < 0.45
    assert max(lengths) > 20 * sorted(lengths)[PAGES // 2]


def test_text_holds_traps(wiki: Wiki) -> None:
    assert b"\n    &lt;title&gt;" in wiki.dump
    assert b"\n  &lt;page&gt;\n" in wiki.dump
    assert b"\n    four spaces" in wiki.dump
    assert b"&lt;ref name=&quot;" in wiki.dump


@pytest.mark.slow
def test_the_same_seed_makes_the_same_dump(tmp_path: pathlib.Path) -> None:
    first, again, other = (
        make(tmp_path / name, "--seed", seed).read_bytes()
        for name, seed in (("a", "3"), ("b", "3"), ("c", "4"))
    )
    assert first == again
    assert first != other


@pytest.mark.slow
def test_a_packed_dump_is_the_plain_one(tmp_path: pathlib.Path) -> None:
    packed = make(tmp_path / "d.xml.bz2", "--compress")
    assert bz2.decompress(packed.read_bytes()) == make(tmp_path / "d.xml").read_bytes()


@pytest.mark.slow
def test_a_dump_can_go_to_standard_output(tmp_path: pathlib.Path) -> None:
    command = [sys.executable, "-m", "examples.wiki.make_dump", "--pages", "40", "--output", "-"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    assert done.stdout == make(tmp_path / "d.xml").read_bytes()
    assert done.stderr.startswith(b"40 pages in ")


def test_a_dump_that_cannot_be_written_is_an_error(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(tmp_path / "missing" / "d.xml")
    assert make_dump.main(["--pages", "1", "--output", path]) == 1
    assert capsys.readouterr().err.startswith(f"error: cannot write {path}: No such file")


@pytest.mark.parametrize("pages", ["0", "-1", "100000001", "x"])
def test_a_number_of_pages_that_cannot_be(pages: str) -> None:
    with pytest.raises(SystemExit) as stopped:
        make_dump.main(["--pages", pages, "--output", "never"])
    assert stopped.value.code == 2


# The index.


@pytest.mark.slow
def test_every_page_is_where_the_index_says(wiki: Wiki) -> None:
    _, offsets, trie = wiki.index
    assert len(offsets) == PAGES + 1
    assert offsets.dtype == np.uint64
    assert (offsets[1:] > offsets[:-1]).all()
    for number, name in enumerate(wiki.names):  # the first and the last one, too
        (offset,) = [value for value in trie[titles.to_key(name)] if value > 0]
        assert offset == offsets[number]
        first, last = titles.page_range(offsets, offset)
        page = ElementTree.fromstring(wiki.dump[first : last + 1])
        assert page.tag == "page"
        assert page.findtext("title") == name


def test_ranges_are_those_of_the_original_program(wiki: Wiki) -> None:
    _, offsets, trie = wiki.index
    for name in (wiki.names[0], wiki.names[-1]):
        offset = trie[titles.to_key(name)][0]
        start = offset - 7
        end = int(offsets[offsets.searchsorted(np.uint64(offset), "right")]) - 11
        assert titles.page_range(offsets, offset) == (start, end)
        assert titles.page_range(offsets, -offset) == (start, end)
        assert wiki.dump[start : start + 6] == b"<page>"
        assert wiki.dump[end - 6 : end + 1] == b"</page>"


def test_aliases_are_lower_case_and_negative(wiki: Wiki) -> None:
    _, offsets, trie = wiki.index
    expected: dict[str, list[int]] = defaultdict(list)
    for name, offset in zip(wiki.names, offsets.tolist(), strict=False):
        expected[titles.to_key(name)].append(offset)
    for name, offset in zip(wiki.names, offsets.tolist(), strict=False):
        if name.lower() != name:
            expected[titles.to_key(name.lower())].append(-offset)
    assert dict(trie.items()) == expected
    assert any(len(values) > 2 for values in expected.values())


def test_prefixes_find_what_a_linear_scan_finds(wiki: Wiki) -> None:
    trie = wiki.index.titles
    everything = set(wiki.names) | {name.lower() for name in wiki.names}
    rng = random.Random(11)
    for name in rng.sample(wiki.names, 150):
        prefix = name[: rng.randint(1, 5)]
        found = [titles.from_key(key) for key in trie.keys(titles.to_key(prefix))]
        assert found == sorted(title for title in everything if title.startswith(prefix))
    assert trie.keys(titles.to_key("no such title")) == []


def test_the_compact_variant_has_indices_of_exact_titles(
    wiki: Wiki, tmp_path: pathlib.Path
) -> None:
    dump = str(wiki.folder / "dump.xml")
    assert build.main([dump, "--output", str(tmp_path), "--compact", "--quiet"]) == 0
    assert listing(tmp_path) == ["index.json", "titles.basetrie", "titles_offsets.npy"]
    manifest, offsets, trie = titles.load(tmp_path)
    assert manifest["compact"]
    assert not manifest["aliases"]
    assert (offsets == wiki.index.offsets).all()
    assert {titles.from_key(key): value for key, value in trie.items()} == {
        name: number for number, name in enumerate(wiki.names)
    }


def test_aliases_can_be_left_out(wiki: Wiki, tmp_path: pathlib.Path) -> None:
    dump = str(wiki.folder / "dump.xml")
    assert build.main([dump, "--output", str(tmp_path), "--no-aliases", "--quiet"]) == 0
    trie = titles.load(tmp_path).titles
    assert {titles.from_key(key) for key in trie} == set(wiki.names)


def test_sorting_outside_of_memory_changes_nothing(wiki: Wiki, tmp_path: pathlib.Path) -> None:
    options = build.Options(wiki.folder / "dump.xml", tmp_path, quiet=True, run_records=700)
    assert build.build(options) == wiki.index.manifest
    assert listing(tmp_path) == ["index.json", "titles.trie", "titles_offsets.npy"]
    for name in (titles.TITLES, titles.OFFSETS):
        assert (tmp_path / name).read_bytes() == (wiki.folder / name).read_bytes()


def test_the_manifest_describes_the_dump(wiki: Wiki) -> None:
    status = (wiki.folder / "dump.xml").stat()
    assert wiki.index.manifest == {
        "version": titles.VERSION,
        "dump": "dump.xml",
        "dump_bytes": status.st_size,
        "dump_mtime": status.st_mtime,
        "packed": False,
        "pages": PAGES,
        "keys": len(wiki.index.titles),
        "aliases": True,
        "compact": False,
    }


def test_an_index_of_a_packed_dump_is_the_same(
    small: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    packed = tmp_path / "packed" / "dump.xml.bz2"
    packed.parent.mkdir()
    # As Wikipedia packs them: several streams, one behind the other.
    content = small.read_bytes()
    packed.write_bytes(bz2.compress(content[:5000]) + bz2.compress(content[5000:]))
    assert build.main([str(small), "--quiet"]) == 0
    assert build.main([str(packed)]) == 0
    assert "offsets are those of the unpacked dump" in capsys.readouterr().err
    for name in (titles.TITLES, titles.OFFSETS):
        assert (packed.parent / name).read_bytes() == (tmp_path / name).read_bytes()
    manifest = titles.read_manifest(packed.parent)
    assert (manifest["packed"], manifest["dump"]) == (True, "dump.xml")
    assert manifest["dump_bytes"] == len(content)
    assert "dump.xml" not in listing(packed.parent)


def test_a_packed_dump_is_unpacked_beside_it(small: pathlib.Path, tmp_path: pathlib.Path) -> None:
    packed = tmp_path / "packed" / "dump.xml.bz2"
    packed.parent.mkdir()
    packed.write_bytes(bz2.compress(small.read_bytes()))
    output = tmp_path / "index"
    assert build.main([str(packed), "--decompress", "--output", str(output), "--quiet"]) == 0
    assert listing(packed.parent) == ["dump.xml", "dump.xml.bz2"]
    unpacked = packed.parent / "dump.xml"
    assert unpacked.read_bytes() == small.read_bytes()
    assert unpacked.stat().st_mtime == titles.read_manifest(output)["dump_mtime"]


def test_a_new_index_takes_the_place_of_the_old_one(small: pathlib.Path) -> None:
    assert build.main([str(small), "--quiet"]) == 0
    old = (small.parent / titles.OFFSETS).read_bytes()
    (small.parent / (build.TEMPORARY + "killed")).mkdir()  # as SIGKILL leaves it
    make(small, "--seed", "9")
    assert build.main([str(small), "--compact", "--quiet"]) == 0
    names = ["dump.xml", "index.json", "titles.basetrie", "titles_offsets.npy"]
    assert listing(small.parent) == names
    assert (small.parent / titles.OFFSETS).read_bytes() != old


@pytest.mark.parametrize("content", [None, b"", b"[]", b"{}", b'{"version": 0}'])
def test_loading_what_is_no_index_says_how_to_make_one(
    tmp_path: pathlib.Path, content: bytes | None
) -> None:
    if content is not None:
        (tmp_path / titles.MANIFEST).write_bytes(content)
    with pytest.raises(titles.IndexMissingError, match=r"examples\.wiki\.build"):
        titles.load(tmp_path)


# Reading.


def exported(
    *pages: bytes, head: bytes = b"<mediawiki>\n", tail: bytes = b"</mediawiki>\n"
) -> bytes:
    return head + b"".join(pages) + tail


def page_of(title: bytes, text: bytes = b"") -> bytes:
    return (
        b"  <page>\n    <title>" + title + b"</title>\n    <text>" + text + b"</text>\n  </page>\n"
    )


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 12_000), max_size=30), st.booleans())
def test_how_a_dump_is_cut_does_not_matter(cuts: list[int], bytewise: bool) -> None:
    dump = exported(
        page_of(b"A"), page_of(b"B &amp; C", b"x" * 5000), page_of(b"D" * 300), page_of(b"E")
    )
    whole = list(scan.pages([dump]))
    assert [title for _, title in whole] == [b"A", b"B &amp; C", b"D" * 300, b"E", b""]
    bounds = sorted({0, len(dump), *(cut for cut in cuts if cut < len(dump))})
    blocks = [dump[a:b] for a, b in itertools.pairwise(bounds)]
    if bytewise:
        blocks = [dump[n : n + 1] for n in range(len(dump))]
    assert list(scan.pages(blocks)) == whole


@pytest.mark.parametrize(
    ("raw", "title"),
    [
        (b"a &amp; b", "a & b"),
        (b"&amp;lt;", "&lt;"),
        (b"&lt;&gt;&quot;&apos;", "<>\"'"),
        (b"&#039;&#x27;&#8211;", "''\u2013"),
        ("é &amp; 語".encode(), "é & 語"),
    ],
)
def test_titles_lose_their_escapes(raw: bytes, title: str) -> None:
    assert scan.unescape(raw, 0) == title


BROKEN = [
    b"a & b",
    b"&amp",
    b"&nbsp;",
    b"&#;",
    b"&#x110000;",
    b"&#0;",
    b"a\0b",
    b"\xff",
    b"&#xd800;",
]


@pytest.mark.parametrize("raw", BROKEN)
def test_a_title_that_is_no_text_is_an_error(raw: bytes) -> None:
    with pytest.raises(scan.BuildError, match="no XML text at byte 17"):
        scan.unescape(raw, 17)


def bad_dumps() -> Iterator[tuple[str, bytes, str]]:
    good = exported(page_of(b"A"), page_of(b"B"), page_of(b"C"))
    end = good.index(b"  </page>")
    yield "empty", b"", "no MediaWiki export"
    yield "text", b"Hello\n" * 1000, "no MediaWiki export"
    yield "html", b"<!DOCTYPE html>\n<html></html>", "no MediaWiki export"
    yield "gzip", b"\x1f\x8b\x08" + b"\0" * 2000, "no MediaWiki export"
    yield "no pages", exported(), "holds no page"
    yield "other indentation", exported(page_of(b"A").replace(b"  ", b"\t")), "holds no page"
    yield "no end", good[:-14], "truncated: no </mediawiki>"
    yield "cut in text", good[: end + 40], "truncated: no </mediawiki>"
    yield "cut in a title", exported(page_of(b"A"), b"  <page>\n    <tit", tail=b""), "truncated"
    yield "page without end", good.replace(b"  </page>\n", b"", 1), "page “A” has no end"
    yield "last page without end", exported(page_of(b"A")[:-11]), "page “A” has no end"
    yield "page without title", exported(b"  <page>\n    <ns>0</ns>\n"), "a page without its title"
    yield "empty title", exported(page_of(b"")), "a page without its title"
    yield "endless title", exported(page_of(b"A" * 20_000)[:-30], tail=b""), "without its title"
    yield "bad title", exported(page_of(b"A &nbsp; B")), "no XML text"
    yield "cut bzip2", bz2.compress(good)[:-10], "bzip2 stream has no end"
    yield "broken bzip2", bz2.compress(good)[:20] + b"x" * 100, "cannot be unpacked"
    yield "truncated before packing", bz2.compress(good[:-14]), "truncated: no </mediawiki>"


@pytest.mark.parametrize(
    ("content", "message"),
    [pytest.param(content, message, id=name) for name, content, message in bad_dumps()],
)
def test_a_dump_that_is_not_whole_leaves_nothing(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str], content: bytes, message: str
) -> None:
    dump = tmp_path / "dump.xml.bz2"
    dump.write_bytes(content)
    output = tmp_path / "new" / "index"
    assert build.main([str(dump), "--output", str(output), "--decompress", "--quiet"]) == 1
    error, hint = capsys.readouterr().err.splitlines()
    assert error.startswith("error: ")
    assert message in error
    assert hint.startswith("  ")
    assert listing(tmp_path) == ["dump.xml.bz2"]


# What goes wrong otherwise.


def test_a_missing_dump(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    dump = tmp_path / "none.xml"
    assert build.main([str(dump), "--output", str(tmp_path / "index")]) == 1
    assert capsys.readouterr().err == (
        f"error: cannot read {dump}: No such file or directory\n  check the path\n"
    )
    assert listing(tmp_path) == []


def test_an_output_folder_that_cannot_be(
    small: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert build.main([str(small), "--output", str(small / "index"), "--quiet"]) == 1
    assert f"error: cannot write to {small / 'index'}: Not a directory" in capsys.readouterr().err


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_an_output_folder_that_is_read_only(
    small: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "index"
    output.mkdir(mode=0o500)
    assert build.main([str(small), "--output", str(output), "--quiet"]) == 1
    assert f"error: cannot write to {output}: Permission denied" in capsys.readouterr().err


def test_two_builds_do_not_share_a_folder(
    small: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with build.output_folder(small.parent):
        assert build.main([str(small), "--quiet"]) == 1
    assert "error: another build is writing to" in capsys.readouterr().err
    assert listing(small.parent) == ["dump.xml"]


@contextlib.contextmanager
def file_bytes_max(limit: int) -> Iterator[None]:
    """Files of this process end there, as on a full disk: also the one that pytest may write to."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


# Wherever it is: in the offsets, in datrie's part and its last block, which datrie does not look
# after, in the values.
@pytest.mark.parametrize("compact", [False, True])
def test_a_full_disk_leaves_the_old_index(
    small: pathlib.Path,
    tmp_path: pathlib.Path,
    capsys: pytest.CaptureFixture[str],
    compact: bool,
) -> None:
    output = tmp_path / "index"
    command = [str(small), "--output", str(output), "--quiet", *["--compact"] * compact]
    assert build.main(command) == 0
    old = {path: path.read_bytes() for path in output.iterdir()}
    size = max(len(content) for content in old.values())
    for limit in {0, 100, size // 3, size - 4097, size - 300, size - 1}:
        with file_bytes_max(limit):
            assert build.main(command) == 1
        error, hint = capsys.readouterr().err.splitlines()
        assert error.startswith(f"error: cannot write to {output}: ")
        assert "free some space" in hint
        assert {path: path.read_bytes() for path in output.iterdir()} == old


def test_no_memory_for_a_key_is_noticed(
    small: pathlib.Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def forgetful(*arguments: Any) -> tuple[Any, int]:
        trie, keys = fill(*arguments)
        return trie, keys + 1

    fill = build.fill
    monkeypatch.setattr(build, "fill", forgetful)
    assert build.main([str(small), "--quiet"]) == 1
    assert capsys.readouterr().err.startswith("error: not enough memory")
    assert listing(small.parent) == ["dump.xml"]


@pytest.mark.parametrize("where", ["fill", "write_offsets", "check_trie", "publish"])
def test_an_interrupt_at_any_time_leaves_nothing(
    small: pathlib.Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(build, where, interrupted)
    with pytest.raises(KeyboardInterrupt):
        build.main([str(small), "--quiet"])
    assert listing(small.parent) == ["dump.xml"]


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_while_reading_leaves_nothing(
    wiki: Wiki, tmp_path: pathlib.Path, number: signal.Signals, status: int
) -> None:
    pipe = tmp_path / "dump.xml"
    os.mkfifo(pipe)
    # A shell that starts the tests in the background has them, and what they start, ignore SIGINT.
    program = (
        "import runpy, signal; signal.signal(signal.SIGINT, signal.default_int_handler);"
        "runpy.run_module('examples.wiki.build', run_name='__main__')"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(pipe), "--output", str(tmp_path / "index")],
        cwd=ROOT,
        stderr=subprocess.PIPE,
    ) as process:
        with open(pipe, "wb") as writer:
            writer.write(wiki.dump[:100_000])
            writer.flush()
            assert process.stderr is not None
            assert process.stderr.readline() == f"reading {pipe}\n".encode()
            # There is no more to read: the build waits, or goes on when it has had the signal.
            assert listing(tmp_path)[-1].startswith(f"index/{build.TEMPORARY}")
            process.send_signal(number)
        rest = process.stderr.read()
    assert process.returncode == status
    assert rest == (b"interrupted; no index was written\n" if number == signal.SIGINT else b"")
    assert listing(tmp_path) == ["dump.xml"]


@pytest.mark.slow
def test_a_pipe_can_be_indexed(wiki: Wiki, tmp_path: pathlib.Path) -> None:
    pipe = tmp_path / "dump.xml"
    os.mkfifo(pipe)
    with subprocess.Popen(
        [sys.executable, "-m", "examples.wiki.build", str(pipe)], cwd=ROOT, stderr=subprocess.PIPE
    ) as process:
        with open(pipe, "wb") as writer:
            writer.write(wiki.dump)
        assert process.stderr is not None
        output = process.stderr.read().decode()
    assert process.returncode == 0
    assert f"{PAGES:,} pages and " in output
    assert titles.read_manifest(tmp_path)["dump_bytes"] == len(wiki.dump)


def test_help_and_quiet(small: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    for main in (build.main, make_dump.main):
        with pytest.raises(SystemExit) as stopped:
            main(["--help"])
        assert stopped.value.code == 0
        assert "usage: python -m examples.wiki." in capsys.readouterr().out
    assert build.main([str(small), "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")


def test_progress_has_rate_and_time_left(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with progress.Progress("reading", 1000, "pages") as bar:
        bar.update(1, 1)  # too early for a line
        now[0] += 10
        bar.update(100, 5000)
        bar.update(110, 5100)
        now[0] += 10
        bar.update(800, 40_000)
    assert capsys.readouterr().err.splitlines() == [
        "reading: 10%, 5,000 pages, 500 pages/s, ETA 1:30",
        "reading: 80%, 40,000 pages, 2,000 pages/s, ETA 0:05",
    ]
    with progress.Progress("reading", None, "pages") as bar:
        now[0] += 10
        bar.update(100, 5000)
    assert capsys.readouterr().err == "reading: 5,000 pages, 500 pages/s\n"


def test_a_bar_is_drawn_on_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tqdm")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with progress.Progress("reading", 1000, "pages") as bar:
        bar.update(1000, 5000)
    drawn = capsys.readouterr().err
    assert "reading: 100%|" in drawn
    assert "5,000 pages, " in drawn


def test_the_manifest_can_be_read_by_others(wiki: Wiki) -> None:
    assert json.loads((wiki.folder / "index.json").read_text())["pages"] == PAGES
