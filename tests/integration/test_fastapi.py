"""FastAPI, served for real; `tests/apps/fastapi_app.py` is the application."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
import serving


@pytest.fixture(scope="module")
def server(serve: Callable[..., Any], variant: dict[str, Any]) -> serving.Server:
    serving.require("fastapi", "python_multipart")
    return serve("fastapi_app:app", **variant)


@pytest.fixture
def client(server: serving.Server) -> Iterator[httpx.Client]:
    with serving.client(server.url) as client:
        yield client


def test_path_and_query(client: httpx.Client) -> None:
    answer = client.get("/items/5", params={"q": "ä b", "flag": "yes"})
    assert answer.json() == {"number": 5, "q": "ä b", "flag": True}
    assert answer.headers["x-middleware"] == "seen"


@pytest.mark.parametrize(
    ("path", "where"),
    [
        ("/items/zero", ["path", "number"]),
        ("/items/0", ["path", "number"]),
        ("/items/1?flag=perhaps", ["query", "flag"]),
        ("/depends?limit=51", ["query", "limit"]),
    ],
)
def test_validation_of_the_target(client: httpx.Client, path: str, where: list[str]) -> None:
    answer = client.get(path)
    assert answer.status_code == 422
    assert [error["loc"] for error in answer.json()["detail"]] == [where]


def test_model_in_and_out(client: httpx.Client) -> None:
    answer = client.post("/items", json={"name": "tea", "price": 2.5, "tags": ["hot"]})
    assert answer.status_code == 201
    assert answer.json() == {"name": "tea", "price": 2.5, "tags": ["hot"], "id": 7}


@pytest.mark.parametrize(
    "body", [{"name": "", "price": 1}, {"name": "x", "price": -1}, {"price": 1}, [], "text"]
)
def test_validation_of_the_body(client: httpx.Client, body: Any) -> None:
    assert client.post("/items", json=body).status_code == 422


def test_body_that_is_not_json(client: httpx.Client) -> None:
    answer = client.post("/items", content=b"{", headers={"content-type": "application/json"})
    assert answer.status_code == 422
    assert client.get("/items/1").status_code == 200


def test_sync_endpoint_with_model(client: httpx.Client) -> None:
    body = {"item": {"name": "tea", "price": 1}, "important": True}
    answer = client.put("/items/3", json=body).json()
    assert answer["item"] == {"name": "tea", "price": 1.0, "tags": []}
    assert answer["important"] is True


def test_no_content(client: httpx.Client) -> None:
    answer = client.delete("/items/3")
    assert answer.status_code == 204
    assert answer.content == b""
    assert client.get("/items/1").status_code == 200


def test_http_exception(client: httpx.Client) -> None:
    answer = client.delete("/items/101")
    assert answer.status_code == 404
    assert answer.json() == {"detail": "no such item"}
    assert answer.headers["x-reason"] == "too large"


def test_dependencies(client: httpx.Client, server: serving.Server) -> None:
    before = server.records()
    answer = client.get("/depends", params={"skip": 5}, headers={"x-token": "abc"})
    assert answer.json() == {
        "token": "abc",
        "resource": "resource",
        "sync": "sync resource",
        "page": {"skip": 5, "limit": 10},
    }
    for line in ("dependency opened", "sync dependency closed", "dependency closed"):
        server.wait_for_record(line, before.count(line) + 1)


def test_dependency_is_closed_after_an_error(client: httpx.Client, server: Any) -> None:
    before = server.records().count("dependency closed")
    assert client.get("/depends/raises").status_code == 500
    server.wait_for_record("dependency closed", before + 1)


def test_sync_endpoint_runs_in_a_thread(client: httpx.Client) -> None:
    assert client.get("/sync").json() == {"main_thread": False}


def test_cookies(client: httpx.Client) -> None:
    assert [client.get("/cookie").json()["visits"] for _ in range(3)] == [0, 1, 2]


def test_upload(client: httpx.Client) -> None:
    files = [
        ("one", ("first ä.txt", b"x" * 10)),
        ("many", ("a", b"y" * 1000)),
        ("many", ("b", b"z" * 2_000_000)),
    ]
    answer = client.post("/upload", files=files, data={"note": "hello"})
    assert answer.json() == {
        "one": "first ä.txt",
        "size": 10,
        "sizes": [1000, 2_000_000],
        "note": "hello",
    }
    assert client.post("/upload/bytes", files={"data": b"x" * 500_000}).json() == 500_000


def test_upload_that_lacks_a_part(client: httpx.Client) -> None:
    assert client.post("/upload", data={"note": "hello"}).status_code == 422


def test_stream(client: httpx.Client) -> None:
    with client.stream("GET", "/stream") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = [line for line in answer.iter_lines() if line]
    assert lines == [f"data: {number}" for number in range(30)]


def test_background_task(client: httpx.Client, server: serving.Server) -> None:
    before = server.records().count("background b")
    assert client.get("/background", params={"name": "b"}).json() == {"name": "b"}
    server.wait_for_record("background b", before + 1)


def test_basic_authentication(client: httpx.Client) -> None:
    assert client.get("/private").status_code == 401
    assert client.get("/private", auth=("ann", "wrong")).status_code == 401
    assert client.get("/private", auth=("ann", "secret")).json() == {"hello": "ann"}


def test_documents(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()
    assert document["info"]["title"] == "An application under test"
    assert set(document["paths"]["/items/{number}"]) == {"get", "put", "delete"}
    assert "swagger-ui" in client.get("/docs").text
    assert "redoc" in client.get("/redoc").text


def test_same_loop_as_the_lifespan(client: httpx.Client) -> None:
    assert client.get("/loop").json() is True


def test_exceptions(client: httpx.Client, server: serving.Server) -> None:
    assert client.get("/raises").status_code == 500
    answer = serving.get(f"{server.url}/raises/custom")
    assert (answer.status_code, answer.json()) == (422, {"custom": True})


def test_concurrent_requests(server: serving.Server) -> None:
    async def main() -> list[httpx.Response]:
        async with serving.async_client(server.url) as client:
            requests = [client.get(f"/items/{number}") for number in range(1, 41)]
            requests += [
                client.get("/depends", headers={"x-token": str(number)}) for number in range(20)
            ]
            return await asyncio.gather(*requests)

    answers = [answer.json() for answer in asyncio.run(main())]
    assert [answer["number"] for answer in answers[:40]] == list(range(1, 41))
    assert [answer["token"] for answer in answers[40:]] == [str(number) for number in range(20)]
