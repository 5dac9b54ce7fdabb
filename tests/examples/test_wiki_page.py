"""The search page of the wiki in a real browser, headless Chromium, by chromedriver."""

from __future__ import annotations

import os
import pathlib
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import serving

from examples.wiki import make_dump

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
DRIVER = shutil.which("chromedriver")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(120),  # a browser's first start on a busy machine
    pytest.mark.skipif(serving.PEER != "ppserver", reason="an API of ppserver"),
    pytest.mark.skipif(
        CHROMIUM is None or DRIVER is None,
        reason="chromium and chromedriver are not there: apt-get install chromium chromium-driver",
    ),
    *(
        pytest.mark.skipif(not serving.is_installed(name), reason=f"{name} is not installed")
        for name in ("numpy", "datrie", "h11")
    ),
]

PROGRAM = serving.ROOT / "examples" / "wiki" / "wiki.py"
GIL_OFF = {"PYTHON_GIL": "0"} if serving.FREE_THREADED else {}
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-dev-shm-usage "
    "--disable-background-networking --disable-component-update --disable-sync"
)
DOWN, UP, ENTER, ESCAPE = "\ue015", "\ue013", "\ue007", "\ue00c"

# A title and a text that would do harm where they are taken for markup.
EVIL_TITLE = "Evil <img src=x onerror=harm()> \"&amp;' page"
EVIL_TEXT = """\
<script>harm()</script><img src=x onerror="harm()"> and '''<b onclick=harm()>bold</b>'''.

== <svg onload=harm()> ==

* [[javascript:harm()|<i>linked</i>]]
* [javascript:harm() no link]
* [https://example.org/"onclick="harm() a link]
* [[Evil <img src=x onerror=harm()> "&amp;' page]]

<iframe srcdoc="<script>parent.harm()</script>"></iframe> &lt;script&gt;harmless&lt;/script&gt;
"""
PLAIN_TITLE = "Plain article"
PLAIN_TEXT = """\
'''Plain''' is ''an'' article<ref>nowhere</ref> about [[Main Page|the main page]].<!-- unseen -->
== History ==
It goes on.

{{Infobox|name=x}}

1 < 2 &amp; 3 &ndash; 4 &#233;&#xe9; &unknown; &#99999999;
"""


class Browser:
    """A session of chromedriver: what the WebDriver protocol says, as far as it is needed here."""

    def __init__(self, client: httpx.Client, options: dict[str, Any]) -> None:
        self._client = client
        self._path = ""
        wanted = {"browserName": "chrome", "goog:chromeOptions": options}
        wanted["goog:loggingPrefs"] = {"browser": "ALL"}
        made = self._say("/session", capabilities={"alwaysMatch": wanted})
        self._path = f"/session/{made['sessionId']}"

    def _say(self, path: str, **body: Any) -> Any:
        answer = self._client.post(self._path + path, json=body)
        value = answer.json()["value"]
        assert answer.status_code == 200, value
        return value

    def close(self) -> None:
        self._client.delete(self._path)

    def open(self, url: str) -> None:
        """A page as if for the first time: only the hash may be what differs."""
        self._say("/url", url="about:blank")
        self._say("/url", url=url)

    def run(self, script: str, *args: Any) -> Any:
        return self._say("/execute/sync", script=script, args=args)

    def resize(self, width: int, height: int) -> None:
        self._say("/window/rect", width=width, height=height)

    def back(self) -> None:
        self._say("/back")

    def click(self, selector: str) -> None:
        found = self._say("/element", using="css selector", value=selector)
        (element,) = found.values()
        self._say(f"/element/{element}/click")

    def type(self, text: str) -> None:
        """Press keys, wherever the focus is."""
        pressed = [{"type": kind, "value": key} for key in text for kind in ("keyDown", "keyUp")]
        self._say("/actions", actions=[{"type": "key", "id": "keyboard", "actions": pressed}])

    def text(self, selector: str) -> str:
        script = "return document.querySelector(arguments[0])?.innerText ?? ''"
        return str(self.run(script, selector))

    def wait_for(self, selector: str, text: str) -> None:
        """Until an element shows exactly this."""
        serving.wait_until(
            lambda: self.text(selector) == text,
            20,
            f"{text!r} in {selector}: {self.text(selector)!r}",
        )

    def titles(self) -> list[str]:
        script = "return [...document.querySelectorAll('#results span')].map(e => e.textContent)"
        return list(self.run(script))

    def complaints(self) -> list[str]:
        """What the browser has logged as wrong since it was asked last."""
        log = self._say("/se/log", type="browser")
        return [entry["message"] for entry in log if entry["level"] == "SEVERE"]


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    assert DRIVER is not None
    home = tmp_path_factory.mktemp("home")
    # Nothing of a sanitizer's environment.
    environ = {"PATH": os.environ["PATH"], "HOME": str(home), "LC_ALL": "C.UTF-8"}
    with subprocess.Popen(
        [DRIVER, "--port=0"], env=environ, cwd=home, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            lines = (re.search(r"started successfully on port (\d+)", x) for x in process.stdout)
            port = next(match[1] for match in lines if match)
            with serving.client(f"http://127.0.0.1:{port}", timeout=90) as client:
                yield client
        finally:
            process.terminate()
            process.stdout.read()


@pytest.fixture(scope="module")
def shared_browser(
    driver: httpx.Client, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Browser]:
    profile = tmp_path_factory.mktemp("profile")
    args = [*FLAGS.split(), "--window-size=1280,860", f"--user-data-dir={profile}"]
    browser = Browser(driver, {"binary": CHROMIUM, "args": args})
    try:
        yield browser
    finally:
        browser.close()


@pytest.fixture
def browser(site: Site, shared_browser: Browser) -> Browser:
    # In this order, so that the browser ends first and the server waits for no connection.
    shared_browser.open(site.server.url + "/")
    shared_browser.complaints()
    return shared_browser


class Site:
    """A small wiki that is served, with two articles of our own."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        path = folder / "dump.xml"
        assert make_dump.main(["--pages", "800", "--output", str(path), "--quiet"]) == 0
        text = path.read_bytes().removesuffix(make_dump.TAIL)
        pages = [(EVIL_TITLE, EVIL_TEXT), (PLAIN_TITLE, PLAIN_TEXT)]
        for number, (title, wikitext) in enumerate(pages, 90_000):
            text += page(number, title, wikitext)
        path.write_bytes(text + make_dump.TAIL)
        build = [sys.executable, "-m", "examples.wiki.build", str(path), "--quiet"]
        subprocess.run(build, check=True, env=serving._environment(folder, GIL_OFF))
        self.server = self.start("127.0.0.1:0")

    def start(self, address: str) -> serving.Server:
        environ = {"PPSERVER_BIND": address, "PPSERVER_CORES": "1", **GIL_OFF}
        server = serving.Server(
            [sys.executable, str(PROGRAM)], serving._environment(self.folder, environ), self.folder
        )
        try:
            server.wait_started()
        except BaseException:
            server.kill()
            raise
        return server


def page(number: int, title: str, text: str) -> bytes:
    user = make_dump.USER % (b"Ana", 1)
    head = (make_dump.escape_title(title), 0, number, b"", number, b"", b"2020-02-29T12:00:00Z")
    content = make_dump.escape(text).encode()
    digest = b"0" * 31
    return make_dump.PAGE % (*head, user, b"", number, len(text), digest, content, digest)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    site = Site(tmp_path_factory.mktemp("wiki"))
    try:
        yield site
    except BaseException:
        site.server.kill()
        raise
    site.server.stop()


def harmless(browser: Browser) -> None:
    """Nothing of the dump has become an element that could do something."""
    assert browser.run("return typeof harmed") == "undefined"
    some = "article :is(script, img, svg, iframe, b, i), nav :is(img, script, b, i)"
    assert browser.run("return document.querySelectorAll(arguments[0]).length", some) == 0
    script = "return [...document.querySelectorAll('article a')].map(link => link.protocol)"
    assert {*browser.run(script)} <= {"http:", "https:"}
    script = """return [...document.querySelectorAll('*')].some(
        element => [...element.attributes].some(one => one.name.startsWith('on')))"""
    assert not browser.run(script)


def test_type_ahead_and_keys(browser: Browser, site: Site) -> None:
    browser.wait_for("article strong", "Search the wiki")
    browser.type("PLAIN")  # the box has the focus, and case does not matter
    browser.wait_for("#status", "1 title")
    assert browser.titles() == [PLAIN_TITLE]
    assert browser.text("#results mark") == "Plain"
    browser.type(DOWN + ENTER)
    browser.wait_for("article h2", PLAIN_TITLE)
    assert browser.run("return document.title") == f"{PLAIN_TITLE} \u2013 Wiki search"
    assert browser.run("return document.activeElement.id") == "query"
    assert browser.complaints() == []


def test_an_article_is_formatted(browser: Browser, site: Site) -> None:
    browser.type(PLAIN_TITLE + ENTER)  # as it is, without choosing
    browser.wait_for("article h2", PLAIN_TITLE)
    assert "Edited February 29, 2020 by Ana" in browser.text("article .about")
    assert browser.text("article h2 ~ p:not(.about)") == "Plain is an article about the main page."
    assert browser.text("article strong") == "Plain"
    assert browser.text("article h3") == "History"
    assert browser.text("article pre") == "{{Infobox|name=x}}"
    assert browser.text("article p:last-child") == "1 < 2 & 3 \u2013 4 éé &unknown; &#99999999;"
    browser.click("article p:not(.about) a")
    browser.wait_for("article h2", "Main Page")
    browser.back()
    browser.wait_for("article h2", PLAIN_TITLE)
    assert browser.complaints() == []


def test_choosing_by_keys(browser: Browser, site: Site) -> None:
    names = re.findall(r"<title>([A-Z][a-z]{2})", (site.folder / "dump.xml").read_text())
    prefix = next(prefix for prefix, count in Counter(names).most_common() if count < 20)
    rows = serving.get(f"{site.server.url}/offsets/{prefix}?case=any").json()
    expected = [title for title, _, _ in rows]
    assert len(expected) > 2
    browser.type(prefix.lower())
    browser.wait_for("#status", f"{len(expected)} titles")
    assert {*browser.titles()} == {*expected}
    shown = browser.titles()
    selected = "#results [aria-selected=true] span"
    browser.type(DOWN + DOWN)
    assert browser.text(selected) == shown[1]
    chosen = "return document.getElementById('query').getAttribute('aria-activedescendant')"
    assert browser.run(chosen) == "result-1"
    browser.type(UP + UP)
    assert browser.text(selected) == ""
    assert browser.run(chosen) is None
    browser.type(UP + DOWN * (len(shown) + 3))  # it stays within the list
    assert browser.text(selected) == shown[-1]
    browser.type(ENTER)
    browser.wait_for("article h2", shown[-1])
    browser.type(ESCAPE)
    browser.wait_for("#status", "")
    assert browser.titles() == []
    browser.click("article h2")
    browser.type("/" + prefix)
    browser.wait_for("#status", f"{len(expected)} titles")
    browser.click("#results li")
    browser.wait_for("article h2", browser.titles()[0])


def test_redirects_lead_on(browser: Browser, site: Site) -> None:
    dump = (site.folder / "dump.xml").read_text()
    found = re.search(
        r'<title>([\w ]+)</title>[^/]*</ns>[^/]*</id>\s*<redirect title="([\w ]+)"', dump
    )
    assert found is not None
    browser.open(f"{site.server.url}/#{found[1]}")
    browser.wait_for("article .redirect", f"Redirects to {found[2]}")
    browser.click("article .redirect a")
    browser.wait_for("article h2", found[2])


def test_nothing_found(browser: Browser, site: Site) -> None:
    browser.type("qq")
    browser.wait_for("#status", "Three characters at least; Enter opens a title as it is.")
    browser.type("qq<b>")
    browser.wait_for("#status", "No title begins with “qqqq<b>”.")
    browser.type(ENTER)
    browser.wait_for("article strong", "No such page")
    assert "There is no page “qqqq<b>”." in browser.text("article")
    harmless(browser)


def test_odd_addresses(browser: Browser, site: Site) -> None:
    for fragment in ("%ff", "%00", "a%2Fb", "%", "<img src=x onerror=harm()>"):
        browser.open(f"{site.server.url}/#{fragment}")
        browser.wait_for("article strong", "No such page")
        harmless(browser)


def test_markup_is_only_text(browser: Browser, site: Site) -> None:
    browser.run("window.harm = () => { window.harmed = true; }")
    browser.type("evil <img")
    browser.wait_for("#status", "1 title")
    assert browser.titles() == [EVIL_TITLE]
    browser.type(DOWN + ENTER)
    browser.wait_for("article h2", EVIL_TITLE)
    text = browser.text("article")
    for part in ("<script>harm()</script>", "<svg onload=harm()>", "[javascript:harm() no link]"):
        assert part in text
    assert "<script>harmless</script>" in text
    harmless(browser)
    browser.click("article li:last-child a")
    browser.wait_for("article h2", EVIL_TITLE)
    harmless(browser)
    # Nor does the page as XML run anything.
    assert browser.complaints() == []


def test_a_page_as_xml(browser: Browser, site: Site) -> None:
    browser.open(f"{site.server.url}/#{PLAIN_TITLE}")
    browser.wait_for("article h2", PLAIN_TITLE)
    browser.click("article .about a")
    serving.wait_until(lambda: "<title>" in browser.text("body, html"), what="a tree of XML")


def test_a_server_that_is_gone(browser: Browser, site: Site) -> None:
    browser.open(f"{site.server.url}/#{PLAIN_TITLE}")
    browser.wait_for("article h2", PLAIN_TITLE)
    site.server.check_log()
    site.server.kill()
    browser.type("main page")
    browser.wait_for("#status", "Cannot search: the server does not answer.")
    browser.type(ENTER)
    browser.wait_for("article strong", "The page cannot be shown")
    site.server = site.start(f"127.0.0.1:{site.server.port}")
    browser.click("article button")
    browser.wait_for("article h2", "Main Page")
    browser.type("/" + PLAIN_TITLE.lower())  # which replaces what was typed
    browser.wait_for("#status", "1 title")


def test_narrow_screens(browser: Browser, site: Site) -> None:
    across = "return document.documentElement.scrollWidth <= window.innerWidth"
    browser.resize(520, 800)
    try:
        browser.type(PLAIN_TITLE + ENTER)
        browser.wait_for("article h2", PLAIN_TITLE)
        assert browser.run("return window.innerWidth") <= 520
        assert browser.run(across)
        # The article stands below the list.
        below = "return document.querySelector(arguments[0]).getBoundingClientRect().left < 5"
        assert browser.run(below, "article")
    finally:
        browser.resize(1280, 860)
    assert not browser.run(below, "article")
