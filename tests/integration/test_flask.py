"""Flask, served for real; `tests/apps/flask_app.py` is the application."""

from __future__ import annotations

import concurrent.futures
import hashlib
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
import serving

LARGE = bytes(range(256)) * 4096


@pytest.fixture(scope="module")
def server(serve: Callable[..., Any], variant: dict[str, Any]) -> serving.Server:
    serving.require("flask")
    # The reference server cannot tell a WSGI application by itself.
    interface = "wsgi" if serving.PEER == "uvicorn" else "auto"
    return serve("flask_app:app", interface=interface, **variant)


@pytest.fixture
def client(server: serving.Server) -> Iterator[httpx.Client]:
    with serving.client(server.url) as client:
        yield client


def test_hello(client: httpx.Client) -> None:
    answer = client.get("/", params={"name": "ä b"}, headers={"x-name": "ann"})
    assert answer.json() == {"hello": "ä b", "g": "ann"}
    assert answer.headers["x-after"] == "ann"


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize("size", [0, 1, 5000, 300_000])
def test_echo(client: httpx.Client, method: str, size: int) -> None:
    answer = client.request(method, "/echo", content=LARGE[:size])
    assert answer.content == LARGE[:size]


def test_json(client: httpx.Client) -> None:
    data = {"text": "ünïcödé 🎉", "list": [1, 2.5, None, True]}
    assert client.post("/json", json=data).json() == data


def test_body_of_known_length(client: httpx.Client) -> None:
    answer = client.post("/digest", content=LARGE).json()
    assert answer == {"size": len(LARGE), "sha256": hashlib.sha256(LARGE).hexdigest()}


@pytest.mark.peer_differs("a chunked body is not announced to the application there")
def test_body_in_chunks(client: httpx.Client) -> None:
    def parts() -> Iterator[bytes]:
        for start in range(0, len(LARGE), 70_000):
            yield LARGE[start : start + 70_000]

    answer = client.post("/digest", content=parts()).json()
    assert answer == {"size": len(LARGE), "sha256": hashlib.sha256(LARGE).hexdigest()}


def test_upload(client: httpx.Client) -> None:
    files = {
        "small": ("small name.txt", b"text", "text/plain"),
        "large": ("large.bin", LARGE * 3, "application/x-large"),
    }
    answer = client.post("/upload", files=files, data={"field": "väl ue"}).json()
    assert answer["field"] == "väl ue"
    assert answer["small"]["filename"] == "small name.txt"
    assert answer["large"]["type"] == "application/x-large"
    assert answer["large"]["sha256"] == hashlib.sha256(LARGE * 3).hexdigest()


def test_stream(client: httpx.Client) -> None:
    with client.stream("GET", "/stream", headers={"x-name": "bob"}) as answer:
        assert "content-length" not in answer.headers
        lines = list(answer.iter_lines())
    assert lines == [f"line {number} for bob" for number in range(50)]


def test_stream_is_closed_when_the_client_goes(server: serving.Server) -> None:
    before = server.records().count("stream closed")
    with httpx.stream("GET", f"{server.url}/stream/closes") as answer:
        next(answer.iter_raw(1000))
    server.wait_for_record("stream closed", before + 1)


def test_stream_that_raises(client: httpx.Client, server: serving.Server) -> None:
    with pytest.raises(httpx.RemoteProtocolError):
        client.get("/stream/raises")
    assert serving.get(server.url).status_code == 200


def test_session(client: httpx.Client) -> None:
    assert [client.get("/session").json()["count"] for _ in range(3)] == [1, 2, 3]


def test_flash_and_template(client: httpx.Client) -> None:
    assert client.get("/flash").text == "['a message']"
    assert client.get("/template", params={"text": "<ä>"}).text == "<p>&lt;ä&gt;</p>"


def test_file(client: httpx.Client) -> None:
    answer = client.get("/file")
    assert answer.content == LARGE
    assert answer.headers["content-length"] == str(len(LARGE))
    assert "attachment" in answer.headers["content-disposition"]
    again = client.get("/file", headers={"if-none-match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_file_range(client: httpx.Client) -> None:
    answer = client.get("/file", headers={"range": "bytes=1000-1999"})
    assert answer.status_code == 206
    assert answer.content == LARGE[1000:2000]


def test_file_head(client: httpx.Client) -> None:
    answer = client.head("/file")
    assert answer.content == b""
    assert answer.headers["content-length"] == str(len(LARGE))
    assert client.get("/").status_code == 200


def test_redirect(client: httpx.Client, server: serving.Server) -> None:
    answer = client.get("/redirect")
    assert answer.headers["location"] == f"{server.url}/?name=redirected"
    assert client.get("/redirect", follow_redirects=True).json()["hello"] == "redirected"


def test_cookies(client: httpx.Client) -> None:
    assert len(client.get("/cookies").headers.get_list("set-cookie")) == 2
    assert client.get("/cookies").json() == {"one": "1", "two": "2"}


def test_exception(client: httpx.Client, server: serving.Server) -> None:
    answer = client.get("/raises")
    assert answer.status_code == 500
    assert "expected by the test" not in answer.text
    assert serving.get(server.url).status_code == 200


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 410, 418, 500, 503])
def test_abort(client: httpx.Client, status: int) -> None:
    answer = client.get(f"/abort/{status}")
    assert answer.status_code == status
    if status == 404:
        assert answer.text == "nothing here"


def test_empty(client: httpx.Client) -> None:
    answer = client.get("/empty")
    assert (answer.status_code, answer.content) == (204, b"")
    assert client.get("/").status_code == 200


def test_status_and_headers(client: httpx.Client) -> None:
    answer = client.get("/tuple")
    assert (answer.status_code, answer.text) == (201, "made")
    assert (answer.headers["x-header"], answer.headers["x-more"]) == ("value", "yes")


def test_wrong_method(client: httpx.Client) -> None:
    answer = client.post("/tuple")
    assert answer.status_code == 405
    assert "GET" in answer.headers["allow"]
    options = client.options("/tuple")
    assert options.status_code == 200


def test_async_view(client: httpx.Client) -> None:
    serving.require("asgiref")
    assert client.get("/async").text == "async"


def test_teardown(client: httpx.Client, server: serving.Server) -> None:
    before = server.records().count("teardown")
    assert client.get("/teardown").text == "torn"
    server.wait_for_record("teardown", before + 1)


@pytest.mark.peer_differs("SERVER_PORT is a number there")
def test_environ(client: httpx.Client, server: serving.Server) -> None:
    answer = client.get("/environ", params={"a": "b c"}, headers={"x-one": "1"}).json()
    assert answer["REQUEST_METHOD"] == "GET"
    assert answer["PATH_INFO"] == "/environ"
    assert answer["SCRIPT_NAME"] == ""
    assert answer["QUERY_STRING"] == "a=b+c"
    assert answer["SERVER_NAME"] == server.host
    assert answer["SERVER_PORT"] == str(server.port)
    assert answer["SERVER_PROTOCOL"] == "HTTP/1.1"
    assert answer["REMOTE_ADDR"] == "127.0.0.1"
    assert answer["HTTP_X_ONE"] == "1"
    assert answer["wsgi.url_scheme"] == "http"
    assert answer["wsgi.run_once"] is False


def test_url(client: httpx.Client, server: serving.Server) -> None:
    answer = client.get("/url/a%20b/%C3%A9").json()
    assert answer["rest"] == "a b/é"
    assert answer["url"] == f"{server.url}/url/a%20b/é"
    assert answer["remote"] == "127.0.0.1"


def test_concurrent_requests(server: serving.Server) -> None:
    def one(number: int) -> str:
        answer = serving.get(
            f"{server.url}/stream", headers={"x-name": str(number)}, timeout=serving.MUST_SECONDS
        )
        return answer.text.splitlines()[-1]

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        assert list(pool.map(one, range(64))) == [f"line 49 for {n}" for n in range(64)]
