"""Django, served for real by ASGI and by WSGI; `tests/apps/django_site` is the project."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import serving

LARGE = bytes(range(256)) * 4096


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database as the migrations leave it; every server gets a copy."""
    serving.require("django")
    directory = tmp_path_factory.mktemp("migrated")
    env = {
        **os.environ,
        "TEST_APP_DIRECTORY": str(directory),
        "DJANGO_SETTINGS_MODULE": "django_site.settings",
        "PYTHONPATH": os.pathsep.join([str(serving.APPS), os.environ.get("PYTHONPATH", "")]),
    }
    for command in (["makemigrations", "--check", "--dry-run"], ["migrate", "-v", "0"]):
        done = subprocess.run(
            [sys.executable, "-m", "django", *command], env=env, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
    (directory / "large.bin").write_bytes(LARGE)
    return directory


@pytest.fixture(scope="module", params=["asgi", "wsgi"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def server(
    database: Path,
    kind: str,
    variant: dict[str, Any],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[serving.Server]:
    directory = tmp_path_factory.mktemp("django") / "data"
    shutil.copytree(database, directory)
    interface = "wsgi" if serving.PEER == "uvicorn" and kind == "wsgi" else "auto"
    app = f"django_site.{kind}:application"
    with serving.running(app, directory, interface=interface, **variant) as server:
        yield server


@pytest.fixture
def client(server: serving.Server) -> Iterator[httpx.Client]:
    with serving.client(server.url) as client:
        yield client


def test_sync_view(client: httpx.Client) -> None:
    answer = client.get("/sync/", params={"a": "ä b"})
    assert answer.json() == {"view": "sync", "get": {"a": "ä b"}}
    assert answer.headers["x-sync-middleware"] == "seen"
    assert answer.headers["x-frame-options"] == "DENY"


def test_async_view(client: httpx.Client) -> None:
    assert client.get("/async/").json() == {"view": "async", "task": True}


@pytest.mark.parametrize("path", ["/items/", "/items/async/"])
def test_database(client: httpx.Client, path: str) -> None:
    found = client.get(path, params={"kind": "tools"}).json()
    assert found["items"] == ["große Zange", "hammer", "saw"]
    new = f"kind of {path}"
    for name in ("one", "zwei ä"):
        made = client.post(path, data={"kind": new, "name": name})
        assert made.status_code == 201
    assert client.get(path, params={"kind": new}).json()["items"] == ["one", "zwei ä"]
    number = made.json()["id"]
    for count in (1, 2):
        answer = client.patch(f"/items/{number}/").json()
        assert answer == {"name": "zwei ä", "count": count, "kind": new}
    assert client.delete(f"/items/{number}/").status_code == 204
    assert client.get(f"/items/{number}/").status_code == 404


def test_transaction_is_rolled_back(client: httpx.Client) -> None:
    assert client.get("/transaction/", params={"name": "rolled"}).json() == {"exists": False}


@pytest.mark.parametrize("path", ["/session/", "/session/async/"])
def test_session(client: httpx.Client, path: str) -> None:
    assert [client.get(path).json()["count"] for _ in range(3)] == [1, 2, 3]


def log_in(client: httpx.Client, password: str) -> httpx.Response:
    page = client.get("/admin/login/")
    assert page.status_code == 200
    token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', page.text)
    assert token is not None
    data = {
        "username": "admin",
        "password": password,
        "csrfmiddlewaretoken": token[1],
        "next": "/admin/",
    }
    return client.post("/admin/login/", data=data)


def test_admin(client: httpx.Client) -> None:
    assert client.get("/admin/").status_code == 302
    answer = log_in(client, "secret")
    assert answer.status_code == 302
    assert answer.headers["location"] == "/admin/"
    assert "Site administration" in client.get("/admin/").text
    page = client.get("/admin/shop/item/", params={"q": "große"})
    assert page.status_code == 200
    assert "große Zange" in page.text
    assert "hammer" not in page.text.partition("result_list")[2]


def test_admin_adds_a_row(client: httpx.Client) -> None:
    log_in(client, "secret")
    page = client.get("/admin/shop/kind/add/")
    token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', page.text)
    assert token is not None
    data = {"name": "added by the admin", "csrfmiddlewaretoken": token[1]}
    answer = client.post("/admin/shop/kind/add/", data=data, follow_redirects=True)
    assert answer.status_code == 200
    assert "was added successfully" in answer.text


def test_admin_refuses_a_wrong_password(client: httpx.Client) -> None:
    answer = log_in(client, "wrong")
    assert answer.status_code == 200
    assert "Please enter the correct username" in answer.text
    assert client.get("/admin/").status_code == 302


def test_csrf(client: httpx.Client) -> None:
    assert client.post("/form/", data={"text": "x"}).status_code == 403
    page = client.get("/form/", params={"text": "<ä>"})
    assert "&lt;ä&gt;" in page.text
    token = re.search(r'value="(\w+)"', page.text)
    assert token is not None
    answer = client.post("/form/", data={"text": "ä", "csrfmiddlewaretoken": token[1]})
    assert answer.text == "posted ä"


def test_stream(client: httpx.Client, kind: str) -> None:
    expected = "".join(f"line {number}\n" for number in range(30))
    assert client.get("/stream/").text == expected


def test_async_stream(client: httpx.Client) -> None:
    expected = "".join(f"line {number}\n" for number in range(30))
    assert client.get("/stream/async/").text == expected


def test_stream_is_closed_when_the_client_goes(
    client: httpx.Client, server: serving.Server, kind: str
) -> None:
    which = ("/stream/async/closes/", "async stream closed")
    path, line = which if kind == "asgi" else ("/stream/closes/", "stream closed")
    before = server.records().count(line)
    with client.stream("GET", path) as answer:
        next(answer.iter_raw(1000))

    def closed() -> bool:
        # Django leaves a response whose send raised OSError to the garbage collector.
        serving.get(f"{server.url}/collect/")
        return server.records().count(line) > before

    serving.wait_until(closed)


def test_upload(client: httpx.Client) -> None:
    small = {"small": ("klein ä.txt", b"text")}
    answer = client.post("/upload/", files=small, data={"field": "väl ue"}).json()
    assert answer["field"] == "väl ue"
    assert answer["small"]["name"] == "klein ä.txt"
    assert answer["small"]["kind"] == "InMemoryUploadedFile"
    answer = client.post("/upload/", files={"large": ("large.bin", LARGE)}).json()
    assert answer["large"]["kind"] == "TemporaryUploadedFile"
    assert answer["large"]["sha256"] == hashlib.sha256(LARGE).hexdigest()


@pytest.mark.parametrize("size", [0, 1, 5000, 300_000])
def test_echo(client: httpx.Client, size: int) -> None:
    assert client.post("/echo/", content=LARGE[:size]).content == LARGE[:size]


def test_json(client: httpx.Client) -> None:
    data = {"text": "ünïcödé 🎉", "list": [1, 2.5, None, True]}
    assert client.post("/json/", json=data).json() == data


def test_file(client: httpx.Client) -> None:
    answer = client.get("/file/")
    assert answer.content == LARGE
    assert answer.headers["content-length"] == str(len(LARGE))
    head = client.head("/file/")
    assert (head.content, head.headers["content-length"]) == (b"", str(len(LARGE)))
    assert client.get("/sync/").status_code == 200


def test_redirect(client: httpx.Client, server: serving.Server) -> None:
    answer = client.get("/redirect/")
    assert answer.headers["location"] == f"{server.url}/items/?kind=tools"
    assert client.get("/redirect/", follow_redirects=True).json()["items"]


@pytest.mark.parametrize("path", ["/raises/", "/raises/async/"])
def test_exception(client: httpx.Client, server: serving.Server, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 500
    assert "Server Error" in answer.text
    assert client.get("/sync/").status_code == 200


def test_sync_in_async_in_sync(client: httpx.Client) -> None:
    assert client.get("/mixed/").json()["count"] == 1


def test_class_based_views(client: httpx.Client) -> None:
    assert client.get("/class/").text == "tools"
    assert client.get("/class/async/").text == "tools"
    assert client.put("/class/", headers={"x-csrftoken": "none"}).status_code in (403, 405)


def test_not_found_and_slash(client: httpx.Client) -> None:
    assert client.get("/missing/").status_code == 404
    answer = client.get("/sync")
    assert (answer.status_code, answer.headers["location"]) == (301, "/sync/")


def test_unknown_host(client: httpx.Client, server: serving.Server) -> None:
    assert client.get("/url/x", headers={"host": "evil.example"}).status_code == 400


def test_url(client: httpx.Client, server: serving.Server) -> None:
    answer = client.get("/url/a%20b/%C3%A9", headers={"x-one": "1"}).json()
    assert answer["rest"] == "a b/é"
    assert answer["url"] == f"{server.url}/url/a%20b/%C3%A9"
    assert answer["remote"] == "127.0.0.1"
    assert answer["port"] == str(server.port)
    assert answer["header"] == "1"


def test_disconnect_before_the_answer(server: serving.Server, kind: str) -> None:
    """An async view is cancelled; WSGI has no word for it, and nobody else may notice."""
    before = server.records()
    path = "/disconnect/" if kind == "asgi" else "/sync/"
    with server.connect() as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
        if kind == "asgi":
            server.wait_for_record("view began", before.count("view began") + 1)
    if kind == "asgi":
        server.wait_for_record("view cancelled", before.count("view cancelled") + 1)
        if sys.version_info >= (3, 14):
            # asyncio reports what a shielded future ends with after its awaiter was cancelled.
            # asgiref shields the middleware's thread, which ends with the view's CancelledError.
            server.allow(r"asyncio\.exceptions\.CancelledError")
    assert serving.get(f"{server.url}/sync/").status_code == 200


def test_concurrent_requests(server: serving.Server) -> None:
    async def main() -> list[int]:
        async with serving.async_client(server.url) as client:
            paths = ["/sync/", "/async/", "/items/?kind=tools", "/items/async/?kind=tools"]
            answers = await asyncio.gather(*(client.get(paths[n % 4]) for n in range(40)))
        return [answer.status_code for answer in answers]

    assert asyncio.run(main()) == [200] * 40
