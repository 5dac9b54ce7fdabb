"""Writes a synthetic MediaWiki dump: the export's schema, titles and lengths as in a real wiki.

    python -m examples.wiki.make_dump --pages N --seed S [--output FILE|-] [--compress]

The same arguments give the same bytes. Titles are unique without being remembered: each article
has a core of its own, made from its number, and no two pages with one core, the article and its
redirects, have the same things around it.
"""

from __future__ import annotations

import argparse
import bz2
import contextlib
import hashlib
import itertools
import os
import random
import signal
import sys
import time
from bisect import bisect_left
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple, NoReturn

from .progress import Progress
from .scripts import WRITINGS, Script

PAGES_MAX = 100_000_000  # so that the smallest script has a core for each
TITLE_BYTES = 255  # MediaWiki's limit
REDIRECTS = 0.4  # of all pages
REDIRECTED = 0.44  # of articles without a namespace: by two on average, which gives as many
PENDING_MAX = 4000  # redirects that wait for a place in the dump
TEXT_BYTES_MAX = 150_000
POOL_BYTES = 1_000_000
BATCH_PAGES = 500
FIRST_EDIT = 979_603_200  # January 2001

HEAD = """\
<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/" \
xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" \
xsi:schemaLocation="http://www.mediawiki.org/xml/export-0.11/ \
http://www.mediawiki.org/xml/export-0.11.xsd" version="0.11" xml:lang="en">
  <siteinfo>
    <sitename>Synthetic</sitename>
    <dbname>syntheticwiki</dbname>
    <base>https://synthetic.example/wiki/Main_Page</base>
    <generator>examples.wiki.make_dump</generator>
    <case>first-letter</case>
    <namespaces>
"""
HEAD_END = """\
    </namespaces>
  </siteinfo>
"""
PAGE = b"""\
  <page>
    <title>%b</title>
    <ns>%d</ns>
    <id>%d</id>
%b    <revision>
      <id>%d</id>
%b      <timestamp>%b</timestamp>
      <contributor>
        %b
      </contributor>
%b      <origin>%d</origin>
      <model>wikitext</model>
      <format>text/x-wiki</format>
      <text bytes="%d" sha1="%b" xml:space="preserve">%b</text>
      <sha1>%b</sha1>
    </revision>
  </page>
"""
TAIL = b"</mediawiki>\n"

NAMESPACES = {
    -2: "Media",
    -1: "Special",
    0: "",
    1: "Talk",
    2: "User",
    3: "User talk",
    4: "Synthetic",
    6: "File",
    8: "MediaWiki",
    10: "Template",
    12: "Help",
    14: "Category",
    100: "Portal",
}

# Titles that have given somebody trouble; none can be made from a core.
HARD = [
    "Main Page",
    "AT&T",
    '"Heroes" (David Bowie album)',
    "Rock 'n' Roll",
    "A",
    "a",
    "C++",
    "C--",
    "100 %",
    "?",
    "AC/DC",
    "Ac/Dc",
    "!!!",
    "...",
    'O\'Reilly & Sons, "Q&A"',
    "&amp;",
    "&lt;title&gt;",
    "%41",
    "İstanbul",
    "STRASSE",
    "Straße",
    "ΟΔΥΣΣΕΥΣ",
    "𐐀𐐁𐐂",
    "👩‍🔬",
    "é" * 127,
    "語" * 85,
    "Ab " * 84 + "end",
]

# What stands around a core: none of it can be part of a core of the first script.
AROUND = [
    *[("", "")] * 22,
    ("", " (film)"),
    ("", " (album)"),
    ("", " (disambiguation)"),
    ("", " (footballer, born 1985)"),
    ("", " (novel)"),
    ("", " (genus)"),
    ("", ", Ohio"),
    ("", ", New York"),
    ("", " County"),
    ("", " & Sons"),
    ("", "'s law"),
    ("", " F.C."),
    ("", " (U.S. TV series)"),
    ('"', '"'),
    ('"', '" (song)'),
    ("The ", " of Avon"),
    ("List of ", " episodes"),
    ("History of ", ""),
    ("Battle of ", ""),
    ("1998\u201399 ", " season"),
]
AROUND_REDIRECTS = [
    ("The ", ""),
    ("", " Inc."),
    ("", " (name)"),
    ("", "!"),
    ("", " & Co."),
    ("", "\u2019s"),
    ("", " (redirect)"),
    ("A ", " story"),
]
SPACES = [*[0] * 40, 14, 14, 14, 14, 10, 10, 6, 4, 12, 100]  # where articles are, by namespace

SENTENCES = [
    "'''It''' was first described in [[{0} {1}]] by {2} &amp; others.",
    'The {0} of the {1} has {2} {3}s.<ref name="{0}">{{{{cite web|url=https://example.org/'
    "?a=1&b=2|title={1} {2}}}}}</ref>",
    "It is known for its \"{0}\", which {1} called '{2}'.",
    "In [[{0}]], {1} > {2} and {2} < {3}; see [[Category:{1}|{3}]].",
    "Dvořák, Łódź, Ελλάδα, Москва, 東京 and العربية were {0} to {1}.&nbsp;{2}",
]
BLOCKS = [
    "== {0} ==",
    "* {0}\n* [[{1}]]\n** ''{2}''",
    "{{{{Infobox {0}\n| name  = {1}\n| image = {2}.jpg\n}}}}",
    '{{| class="wikitable"\n! {0} !! {1}\n|-\n| {2} || {3}\n|}}',
    "<!-- {0} & {1} -->\n<gallery>\nFile:{2}.png|{3}\n</gallery>",
    # What looks like the export's own lines, once it is escaped.
    "<pre>\n  <page>\n    <title>{0}</title>\n    <ns>0</ns>\n  </page>\n</pre>",
    "    <title>{1} {2}</title>\n    four spaces before {3}\n    <id>7</id>",
    "</text>\n</revision>\n  </page>\n</mediawiki>\n{0}",
]


def escape(text: str) -> str:
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return text.replace('"', "&quot;")


def escape_title(title: str) -> bytes:
    return escape(title).replace("'", "&#039;").encode()


class Pool:
    """Paragraphs of wikitext, of which every page takes some that follow each other."""

    def __init__(self, rng: random.Random) -> None:
        first = Script(WRITINGS[0], rng)
        words = [first.core(n).split()[n & 1].lower() for n in range(3000)]
        plain: list[bytes] = []
        self.ends: list[int] = []  # of each paragraph, in the plain text
        self.escaped_ends: list[int] = []
        escaped: list[bytes] = []
        size = escaped_size = 0
        while size < POOL_BYTES + TEXT_BYTES_MAX:
            if rng.random() < 0.3:
                text = rng.choice(BLOCKS).format(*rng.choices(words, k=4))
            else:
                many = rng.choices(SENTENCES, k=rng.randint(2, 6))
                text = " ".join(
                    [s.format(*rng.choices(words, k=4)) for s in many]
                    + [" ".join(rng.choices(words, k=rng.randint(5, 40))) + "."]
                )
            text += "\n\n"
            plain.append(text.encode())
            escaped.append(escape(text).encode())
            size += len(plain[-1])
            escaped_size += len(escaped[-1])
            self.ends.append(size)
            self.escaped_ends.append(escaped_size)
        self.plain = b"".join(plain)
        self.escaped = b"".join(escaped)
        self.starts = bisect_left(self.ends, POOL_BYTES)  # paragraphs to begin after

    def take(self, at: int, length: int) -> tuple[bytes, bytes]:
        """About so many bytes from a paragraph on, plain and escaped, without the last newlines."""
        begin = self.ends[at]
        last = bisect_left(self.ends, begin + length)
        return (
            self.plain[begin : self.ends[last] - 2],
            self.escaped[self.escaped_ends[at] : self.escaped_ends[last] - 2],
        )


class Page(NamedTuple):
    title: str
    namespace: int
    target: str  # of a redirect, else empty


def titles(rng: random.Random) -> Iterator[Page]:
    """All pages there could be. No two have one title."""
    for title in HARD:
        yield Page(title, 0, "")
    scripts = [Script(writing, rng) for writing in WRITINGS]
    sums = list(itertools.accumulate(writing.weight for writing in WRITINGS))
    filler = Script(WRITINGS[0], rng)
    pending: list[Page] = []
    random_ = rng.random
    for number in itertools.count():
        script = scripts[bisect_left(sums, random_() * sums[-1])]
        core = script.core(number)
        before, after = AROUND[int(random_() * len(AROUND))]
        namespace = SPACES[int(random_() * len(SPACES))]
        if random_() < 0.002:
            before, after = "", ": " + lengthy(filler, number)
        prefix = NAMESPACES[namespace] + ":" if namespace else ""
        title = cut(f"{prefix}{before}{core}{after}")
        yield Page(title, namespace, "")

        # On average as many redirects as make their share of the pages.
        if not namespace and random_() < REDIRECTED:
            redirects = 1 + int(random_() * 3)
            for other in variants(script, core, before, after, redirects, rng):
                if other != title:
                    pending.append(Page(cut(other), 0, title))
        while pending and (len(pending) > PENDING_MAX or random_() < REDIRECTS):
            at = int(random_() * len(pending))
            pending[at], pending[-1] = pending[-1], pending[at]
            yield pending.pop()


def variants(
    script: Script, core: str, before: str, after: str, count: int, rng: random.Random
) -> list[str]:
    """Other titles of an article, all different."""
    found = []
    if script.cased:
        # Titles that differ only in case from the article's.
        found.append(f"{before}{core.capitalize()}{after}")
        found.append(f"{before}{core.upper()}{after}")
    if before or after:
        found.append(core)
    found += [f"{one}{core}{other}" for one, other in rng.sample(AROUND_REDIRECTS, 2)]
    return found[:count] if rng.random() < 0.5 else found[-count:]


def lengthy(filler: Script, number: int) -> str:
    return " ".join(filler.core(number + n) for n in range(30))


def cut(title: str) -> str:
    """At most as long as MediaWiki lets a title be; only what is around a core is ever cut."""
    if len(title) * 4 <= TITLE_BYTES:
        return title
    return title.encode()[:TITLE_BYTES].decode(errors="ignore").rstrip()


DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
PAIRS = [a + b for a in DIGITS for b in DIGITS]


def sha1(text: bytes) -> bytes:
    """As MediaWiki writes it: to the base 36, with 31 digits."""
    rest = int.from_bytes(hashlib.sha1(text).digest(), "big")
    parts = []
    for _ in range(16):
        rest, pair = divmod(rest, 1296)
        parts.append(PAIRS[pair])
    parts.reverse()
    return "".join(parts)[1:].encode()


def pages(count: int, seed: int) -> Iterator[bytes]:
    """The lines of so many pages, one item each."""
    rng = random.Random(seed)
    random_ = rng.random
    pool = Pool(rng)
    comments = [b"", *(b"      <comment>%b</comment>\n" % c for c in COMMENTS)]
    users = [USER % (b"%s %d" % (name, n), n) for n, name in enumerate(USERS * 20, 100)]
    users += [b"<ip>192.0.2.%d</ip>" % n for n in range(1, 60)]
    page_id = revision = 0
    edited = FIRST_EDIT
    for title, namespace, target in itertools.islice(titles(rng), count):
        page_id += 1 + int(random_() * 3)
        revision += 1 + int(random_() * 90)
        edited += int(random_() * 120)
        if target:
            name = escape_title(target)
            redirect = b'    <redirect title="%b" />\n' % name
            plain = f"#REDIRECT [[{target}]]\n\n{{{{R from other name}}}}".encode()
            escaped = escape(plain.decode()).encode()
        else:
            redirect = b""
            intro = f"'''{title}''' is an article.\n\n"
            # Zipf's law: the share of texts longer than n falls with n.
            length = min(int(80 * (1.0 - random_()) ** -0.9), TEXT_BYTES_MAX)
            text, escaped = pool.take(int(random_() * pool.starts), length)
            plain = intro.encode() + text
            escaped = escape(intro).encode() + escaped
        digest = sha1(plain)
        yield PAGE % (
            escape_title(title),
            namespace,
            page_id,
            redirect,
            revision,
            b"      <parentid>%d</parentid>\n" % (revision - 1) if revision & 3 else b"",
            time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(edited)).encode(),
            users[int(random_() * len(users))],
            comments[int(random_() * len(comments))],
            revision,
            len(plain),
            digest,
            escaped,
            digest,
        )


USER = b"<username>%b</username>\n        <id>%d</id>"
USERS = [b"Ana", b"Bj\xc3\xb6rn", b"Chen &amp; Lee", b"D&#039;Arcy", b"\xd0\x95\xd0\xb2\xd0\xb0"]
COMMENTS = [
    b"/* History */ copyedit",
    b"Reverted edits by [[Special:Contributions/192.0.2.7|192.0.2.7]]",
    b"added &lt;ref&gt; &amp; &quot;links&quot;",
    b"\xe2\x86\x90 Redirected page",
]


def head() -> bytes:
    lines = [HEAD]
    for key, name in NAMESPACES.items():
        end = f">{name}</namespace>" if name else " />"
        lines.append(f'      <namespace key="{key}" case="first-letter"{end}\n')
    return "".join([*lines, HEAD_END]).encode()


def write(out: IO[bytes], count: int, seed: int, progress: Progress) -> None:
    out.write(head())
    source = pages(count, seed)
    done = 0
    while batch := list(itertools.islice(source, BATCH_PAGES)):
        out.write(b"".join(batch))
        done += len(batch)
        progress.update(done, done)
    out.write(TAIL)


@contextlib.contextmanager
def opened(output: str, compress: bool) -> Iterator[IO[bytes]]:
    """The file to write, which has its name only when it is whole; or standard output."""
    with contextlib.ExitStack() as stack:
        if output == "-":
            file: IO[bytes] = sys.stdout.buffer
            temporary = None
        else:
            path = Path(output)
            temporary = path.with_name(f".{path.name}.{os.getpid()}")
            file = stack.enter_context(open(temporary, "xb"))
            stack.callback(temporary.unlink, missing_ok=True)
        packed = bz2.BZ2File(file, "wb") if compress else None
        yield packed or file
        if packed is not None:
            packed.close()
        file.flush()
        if temporary is not None:
            os.fsync(file.fileno())
            temporary.replace(path)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m examples.wiki.make_dump",
        description="Write a synthetic MediaWiki dump.",
    )
    parser.add_argument("--pages", type=int, required=True, metavar="N", help="how many")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="which ones (default: 0)")
    parser.add_argument(
        "--output", metavar="FILE", help="where to (default: dump.xml); - is standard output"
    )
    parser.add_argument("--compress", action="store_true", help="pack it with bzip2")
    parser.add_argument("--quiet", action="store_true", help="say nothing but errors")
    given = parser.parse_args(arguments)
    if not 1 <= given.pages <= PAGES_MAX:
        parser.error(f"argument --pages: {given.pages} is not in 1..{PAGES_MAX}")
    if given.output is None:
        given.output = "dump.xml.bz2" if given.compress else "dump.xml"
    return given


def main(arguments: list[str] | None = None) -> int:
    given = parse(arguments)
    started = time.monotonic()
    try:
        with (
            opened(given.output, given.compress) as out,
            Progress("writing", given.pages, "pages", quiet=given.quiet) as progress,
        ):
            write(out, given.pages, given.seed, progress)
    except BrokenPipeError:
        # Whoever read has had enough; nothing is left to be flushed at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        print(
            f"error: cannot write {given.output}: {error.strerror}\n  choose another --output",
            file=sys.stderr,
        )
        return 1
    if not given.quiet:
        seconds = time.monotonic() - started
        print(
            f"{given.pages:,} pages in {seconds:.1f} s ({given.pages / seconds:,.0f} pages/s)",
            file=sys.stderr,
        )
    return 0


def terminate(number: int, frame: object) -> NoReturn:
    raise SystemExit(128 + number)


def run() -> NoReturn:
    signal.signal(signal.SIGTERM, terminate)
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("interrupted; no dump was written", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    run()
