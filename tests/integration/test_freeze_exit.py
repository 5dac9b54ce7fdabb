"""An interpreter with everything in it frozen works on, and ends in good order."""

from __future__ import annotations

import os

import pytest
import serving
from snippets import run_python

from ppserver import _native

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(serving.PEER != "ppserver", reason="freezing is ppserver's own"),
]

PREPARE = """
import importlib, sys, warnings
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    for name in sys.argv[1].split():
        importlib.import_module(name)
import ppserver
from ppserver import freezing
"""

STDLIB = """
import asyncio, collections.abc, concurrent.futures, decimal, enum, functools, gc, json, logging
import pickle, re, tempfile, threading, unittest.mock, weakref

class Color(enum.Enum):
    RED = 1

class Node:
    def __init__(self):
        self.me = self

class Closes:
    def __del__(self):
        self.closed = True

node, closes = Node(), Closes()
values = weakref.WeakValueDictionary(node=node)
keys = weakref.WeakKeyDictionary({node: 1})
final = weakref.finalize(node, print, "finalised")
pool = concurrent.futures.ThreadPoolExecutor(2)
assert pool.submit(max, 1, 2).result() == 2
file = tempfile.TemporaryFile()
logging.basicConfig(stream=sys.stdout, format="%(message)s")
local = threading.local()
local.value = [1]

def numbers():
    yield 1
    yield 2

running = numbers()
next(running)

report = freezing.prepare(ppserver.Config("a:b"))

class Later(Node, collections.abc.Mapping):
    def __getitem__(self, key):
        return key
    def __iter__(self):
        return iter(())
    def __len__(self):
        return 0

async def main():
    async with asyncio.timeout(5):
        await asyncio.sleep(0)
        return await asyncio.to_thread(pow, 2, 10)

for round in range(3):
    assert asyncio.run(main()) == 1024
    assert json.loads(json.dumps({"a": [1, 2.5, None]})) == {"a": [1, 2.5, None]}
    assert re.sub(f"a{round}+", "b", f"ca{round}") == "cb"
    assert pickle.loads(pickle.dumps(Color.RED)) is Color.RED
    assert decimal.Decimal("1.1") + 1 == decimal.Decimal("2.1")
    assert Later().get(3) == 3 and isinstance(Later(), collections.abc.Mapping)
    assert isinstance(Later().me, Node) and issubclass(Later, collections.abc.Mapping)
    with unittest.mock.patch.object(Node, "me", 5, create=True):
        assert Node.me == 5
    Node.added = round
    assert Later().added == round
    assert pool.submit(sum, [1, 2]).result() == 3
    gc.collect()

assert list(running) == [2]
assert dict(values) == {"node": node} and keys[node] == 1 and local.value == [1]
logging.getLogger("x").warning("logged")
file.write(b"x")
file.close()
pool.shutdown()
del file, node
print("done")
"""

STARLETTE = """
import asyncio, httpx
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

async def shared(request):
    return JSONResponse({"path": request.url.path})

def plain(request):
    return JSONResponse({"query": dict(request.query_params)})

app = Starlette(routes=[Route("/async", shared), Route("/sync", plain)])
freezing.prepare(ppserver.Config("a:b"), app)

async def main():
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://a") as client:
        assert (await client.get("/async")).json() == {"path": "/async"}
        assert (await client.get("/sync?a=b")).json() == {"query": {"a": "b"}}
        assert (await client.get("/none")).status_code == 404

for _ in range(3):
    asyncio.run(main())
print("done")
"""

DJANGO = """
import django
from django.conf import settings
settings.configure(
    SECRET_KEY="x", ALLOWED_HOSTS=["*"], ROOT_URLCONF="__main__", USE_TZ=True,
    INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
)
django.setup()
from django.contrib.auth.models import Group
from django.core.management import call_command
from django.core.wsgi import get_wsgi_application
from django.db import connection, connections
from django.http import JsonResponse
from django.test import Client
from django.urls import path

def groups(request):
    Group.objects.create(name=request.GET["name"])
    return JsonResponse({"names": list(Group.objects.values_list("name", flat=True))})

urlpatterns = [path("groups/", groups)]
call_command("migrate", verbosity=0)
app = get_wsgi_application()
freezing.prepare(ppserver.Config("a:b"), app)
client = Client()
names = []
for name in "abc":
    names.append(name)
    assert client.get("/groups/", {"name": name}).json() == {"names": names}
connections.close_all()
print("done")
"""

CALLS_AT_EXIT = """
import atexit
class Resource:
    def __init__(self, name):
        self.name = name
    def __del__(self):
        print("ended", self.name, flush=True)

held = Resource("by a module")
class Holder:
    pass
holder = Holder()
holder.resource = Resource("by a frozen object")
atexit.register(print, "atexit")
freezing.prepare(ppserver.Config("a:b"))
print("done")
"""


def run(code: str, *modules: str) -> list[str]:
    return run_python(PREPARE + code, " ".join(modules), timeout=300).splitlines()


def test_standard_library() -> None:
    modules = (
        "argparse ast base64 bisect calendar cmd code configparser contextvars copy csv ctypes "
        "curses dataclasses datetime difflib dis doctest email.message fractions ftplib getpass "
        "glob graphlib gzip hashlib heapq html.parser http.server imaplib inspect ipaddress "
        "itertools linecache locale lzma mailbox mimetypes multiprocessing.pool "
        "multiprocessing.shared_memory netrc numbers optparse pathlib pdb pkgutil platform "
        "plistlib poplib pprint profile pydoc queue random sched secrets selectors shelve shlex "
        "shutil smtplib socketserver sqlite3 ssl statistics string struct subprocess sysconfig "
        "tarfile tokenize tomllib trace traceback tracemalloc types typing unittest urllib.request "
        "uuid venv wave webbrowser wsgiref.simple_server xml.dom.minidom xml.etree.ElementTree "
        "xml.sax xmlrpc.client xmlrpc.server zipapp zipfile zoneinfo"
    )
    assert run(STDLIB, modules) == ["logged", "done", "finalised"]


@pytest.mark.parametrize("extra", ["", "numpy", "pandas", "datrie", "fastapi flask"])
def test_starlette(extra: str) -> None:
    for name in extra.split():
        serving.optional(name)
    assert run(STARLETTE, extra) == ["done"]


def test_django() -> None:
    assert run(DJANGO) == ["done"]


def test_finalisers_at_exit() -> None:
    """A module's own resources end as ever; what only frozen objects hold does not.

    Where only the collector is told, not even those of modules do: their cycles are not found.
    """
    lines = run(CALLS_AT_EXIT)
    assert lines[:2] == ["done", "atexit"]
    if _native.freeze_support()[0] == "on":
        assert lines[2:] == ["ended by a module"]


@pytest.mark.skipif(not os.environ.get("TEST_MORE"), reason="only in the long form")
@pytest.mark.timeout(900)
def test_exit_again_and_again() -> None:
    for _ in range(20):
        run(STDLIB)
        run(STARLETTE)
