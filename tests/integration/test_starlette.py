"""Starlette, served for real; `tests/apps/starlette_app.py` is the application."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
import serving

LARGE = bytes(range(256)) * 4096


@pytest.fixture(scope="module")
def server(serve: Callable[..., Any], variant: dict[str, Any]) -> serving.Server:
    serving.require("starlette", "python_multipart", "itsdangerous")
    return serve("starlette_app:app", **variant)


@pytest.fixture
def client(server: serving.Server) -> Iterator[httpx.Client]:
    with serving.client(server.url) as client:
        yield client


def test_sync_endpoint(client: httpx.Client) -> None:
    answer = client.get("/sync").json()
    assert answer["hello"] == "sync"
    assert answer["thread"] != "MainThread"


def test_async_endpoint(client: httpx.Client) -> None:
    answer = client.get("/async", params={"a": "1", "b": "ä ö"})
    assert answer.json() == {"hello": "async", "query": {"a": "1", "b": "ä ö"}}
    assert answer.headers["content-type"] == "application/json"


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH"])
@pytest.mark.parametrize("size", [0, 1, 5000, 300_000])
def test_echo(client: httpx.Client, method: str, size: int) -> None:
    data = LARGE[:size]
    answer = client.request(method, "/echo", content=data, headers={"content-type": "x/y"})
    assert answer.content == data
    assert answer.headers["content-type"] == "x/y"


def test_json(client: httpx.Client) -> None:
    data = {"text": "ünïcödé 🎉", "list": [1, 2.5, None, True], "nested": {"a": {}}}
    assert client.post("/json", json=data).json() == data


def test_streamed_request_body(client: httpx.Client) -> None:
    def parts() -> Iterator[bytes]:
        for start in range(0, len(LARGE), 50_000):
            yield LARGE[start : start + 50_000]

    answer = client.post("/digest", content=parts()).json()
    assert answer == {"size": len(LARGE), "sha256": hashlib.sha256(LARGE).hexdigest()}


def test_upload(client: httpx.Client) -> None:
    files = {
        "small": ("small name.txt", b"some text", "text/plain"),
        "large": ("large.bin", LARGE * 2, "application/octet-stream"),
    }
    answer = client.post("/upload", files=files, data={"field": "väl ue"}).json()
    assert answer["field"] == "väl ue"
    assert answer["small"]["filename"] == "small name.txt"
    assert answer["small"]["type"] == "text/plain"
    assert answer["large"]["size"] == len(LARGE) * 2
    assert answer["large"]["sha256"] == hashlib.sha256(LARGE * 2).hexdigest()


def test_form(client: httpx.Client) -> None:
    assert client.post("/upload", data={"a": "1", "b": "x y&z"}).json() == {"a": "1", "b": "x y&z"}


@pytest.mark.parametrize(("kind", "count"), [("async", 50), ("sync", 20)])
def test_stream(client: httpx.Client, kind: str, count: int) -> None:
    answer = client.get(f"/stream/{kind}", headers={"accept-encoding": "identity"})
    assert answer.text == "".join(f"line {number}\n" for number in range(count))


def test_stream_compressed(client: httpx.Client) -> None:
    answer = client.get("/stream/async")
    assert answer.headers["content-encoding"] == "gzip"
    assert answer.text.endswith("line 49\n")


def test_stream_is_closed_when_the_client_goes(client: httpx.Client, server: Any) -> None:
    before = server.records().count("stream closed")
    with client.stream("GET", "/stream/endless") as answer:
        next(answer.iter_raw())

    def closed() -> bool:
        # When the middleware cancels the stream while it hands over a piece, the generator is
        # not running: it ends when it is dropped. anyio's task group keeps the CancelledError in
        # a local variable of a frame that is in the error's own traceback, and so everything
        # below it, until a collection. No server can help that, whatever the loop.
        # Connections that are open at the same time, so that every context gets one to collect.
        with contextlib.ExitStack() as stack:
            for _ in range(8):
                one = stack.enter_context(serving.client(server.url))
                assert one.get("/collect").status_code == 200
        return bool(server.records().count("stream closed") == before + 1)

    serving.wait_until(closed, what="the stream is closed")


def test_stream_that_raises(client: httpx.Client) -> None:
    with pytest.raises(httpx.RemoteProtocolError):
        client.get("/plain/stream-raises", headers={"accept-encoding": "identity"})
    assert client.get("/async").status_code == 200


def test_background_task(client: httpx.Client, server: serving.Server) -> None:
    assert client.get("/background", params={"name": "once"}).text == "started"
    server.wait_for_record("sync once")


def test_background_tasks(client: httpx.Client, server: serving.Server) -> None:
    assert client.get("/backgrounds", headers={"x-name": "ann"}).text == "started"
    server.wait_for_record("async one as ann")
    server.wait_for_record("async two as ann")


def test_background_task_that_raises(client: httpx.Client, server: serving.Server) -> None:
    assert client.get("/background/fails").text == "started"
    assert serving.get(f"{server.url}/async").status_code == 200


def test_middleware(client: httpx.Client) -> None:
    answer = client.get("/async", headers={"x-name": "bob", "origin": "https://example.org"})
    assert answer.headers["x-base-middleware"] == "bob"
    assert answer.headers["x-pure-middleware"] == "yes"
    assert answer.headers["access-control-allow-origin"] == "https://example.org"


def test_context_variables_of_concurrent_requests(server: serving.Server) -> None:
    async def main() -> None:
        async with serving.async_client(server.url) as client:
            names = [f"client {number}" for number in range(40)]
            paths = ["/blocking", "/async", "/stream/sync", "/sync"]
            answers = await asyncio.gather(
                *(
                    client.get(paths[number % 4], headers={"x-name": name})
                    for number, name in enumerate(names)
                )
            )
        assert [answer.headers["x-base-middleware"] for answer in answers] == names

    asyncio.run(main())


def test_file(client: httpx.Client) -> None:
    answer = client.get("/file")
    assert answer.content == LARGE
    assert "filename*=utf-8''large%20file.bin" in answer.headers["content-disposition"]
    assert client.head("/file").headers["etag"] == answer.headers["etag"]


def test_file_range(client: httpx.Client) -> None:
    headers = {"range": "bytes=1000-1999", "accept-encoding": "identity"}
    answer = client.get("/file", headers=headers)
    assert answer.status_code == 206
    assert answer.content == LARGE[1000:2000]
    assert answer.headers["content-range"] == f"bytes 1000-1999/{len(LARGE)}"


def test_static_file(client: httpx.Client) -> None:
    answer = client.get("/static/large.bin", headers={"accept-encoding": "identity"})
    assert answer.content == LARGE
    again = client.get("/static/large.bin", headers={"if-none-match": answer.headers["etag"]})
    assert again.status_code == 304
    assert again.content == b""
    assert client.get("/static/missing").status_code == 404
    assert client.get("/static/%2e%2e/record").status_code == 404


@pytest.mark.parametrize("path", ["/raises", "/raises/thread"])
def test_exception(client: httpx.Client, server: serving.Server, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 500
    assert answer.text == "Internal Server Error"
    assert serving.get(f"{server.url}/async").status_code == 200


def test_http_exception(client: httpx.Client) -> None:
    answer = client.get("/raises/http")
    assert answer.status_code == 418
    assert answer.text == "a teapot"
    assert answer.headers["x-pot"] == "short and stout"


def test_exception_handler(client: httpx.Client) -> None:
    answer = client.get("/raises/handled")
    assert answer.status_code == 409
    assert answer.text == "handler: handled"


def test_redirect(client: httpx.Client) -> None:
    answer = client.get("/redirect", follow_redirects=True)
    assert answer.json()["query"] == {"redirected": "1"}


def test_cookies(client: httpx.Client) -> None:
    answer = client.get("/cookies")
    assert len(answer.headers.get_list("set-cookie")) == 2
    assert client.get("/cookies").json() == {"one": "1", "two": "2"}


def test_session(client: httpx.Client) -> None:
    assert [client.get("/session").json()["count"] for _ in range(3)] == [1, 2, 3]


def test_lifespan_state(client: httpx.Client) -> None:
    assert client.get("/state").json() == {
        "resource": "from the lifespan",
        "app": "starlette application",
        "same_loop": True,
        "seen_by": "base middleware",
    }


def test_urls(client: httpx.Client, server: serving.Server) -> None:
    answer = client.get("/items/7", params={"q": "x y"}).json()
    assert answer == {
        "url": f"{server.url}/items/7?q=x+y",
        "base": f"{server.url}/",
        "made": f"{server.url}/items/5",
        "client": "127.0.0.1",
        "params": {"number": 7},
    }


def test_not_found_and_wrong_method(client: httpx.Client) -> None:
    assert client.get("/missing").status_code == 404
    answer = client.delete("/async")
    assert answer.status_code == 405
    assert set(answer.headers["allow"].split(", ")) == {"GET", "HEAD"}


def test_class_based_endpoint(client: httpx.Client) -> None:
    assert client.get("/endpoint").text == "get"
    assert client.post("/endpoint").text == "post"


def test_head(client: httpx.Client) -> None:
    answer = client.head("/async")
    assert answer.content == b""
    assert client.head("/file").headers["content-length"] == str(len(LARGE))


def test_disconnect_is_seen(server: serving.Server) -> None:
    before = server.records().count("slow saw the disconnect")
    with pytest.raises(httpx.ReadTimeout):
        serving.get(f"{server.url}/plain/slow", timeout=0.2)
    server.wait_for_record("slow saw the disconnect", before + 1)


def test_cut_upload(server: serving.Server) -> None:
    before = server.records()
    with server.connect() as connection:
        connection.sendall(
            b"POST /cut-upload HTTP/1.1\r\nHost: test\r\nContent-Length: 9999\r\n\r\nsome"
        )
        server.wait_for_record("upload began", before.count("upload began") + 1)
    server.wait_for_record("upload was cut", before.count("upload was cut") + 1)
