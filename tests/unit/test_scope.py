"""A scope belongs to its request: what one application call does to it, no other sees."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from typing import Any

import pytest

from ppserver._native import Core

PRISTINE = {"version": "3.0", "spec_version": "2.3"}
Scope = dict[str, Any]


def scopes_of(
    change: Any, targets: Sequence[str] = ("/",) * 5, root_path: str = ""
) -> list[tuple[Scope, Scope]]:
    """For each request its scope and "asgi" as they came; then `change` gets the scope."""
    seen: list[tuple[Scope, Scope]] = []
    failures: list[BaseException] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append((dict(scope), dict(scope["asgi"])))
        change(scope)
        await send({"type": "http.response.start", "status": 204})
        await send({"type": "http.response.body"})

    async def main(port: int) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for target in targets[:-1]:
            writer.write(f"GET {target} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
        last = f"GET {targets[-1]} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
        writer.write(last.encode())
        answers = await asyncio.wait_for(reader.read(), 60)
        writer.close()
        return answers

    core = Core()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        loop = asyncio.SelectorEventLoop(core.selector())
        try:
            options = {"root_path": root_path, "on_error": lambda exc, _: failures.append(exc)}
            core.serve_asgi(app, loop, state=None, **options)
            core.add_listener(listener.fileno())
            answers = loop.run_until_complete(main(listener.getsockname()[1]))
            assert answers.count(b" 204 ") == len(targets)
        finally:
            core.close()
            loop.close()
    assert not failures
    return seen


def add(scope: Scope) -> None:
    scope["asgi"]["extra"] = 1


def replace(scope: Scope) -> None:
    scope["asgi"]["version"] = "2.0"


def remove(scope: Scope) -> None:
    del scope["asgi"]["spec_version"]


def exchange(scope: Scope) -> None:
    del scope["asgi"]["spec_version"]
    scope["asgi"]["other"] = "2.4"


def clear(scope: Scope) -> None:
    scope["asgi"].clear()
    scope.clear()


@pytest.mark.parametrize("change", [id, add, replace, remove, exchange, clear])
def test_changes_stay_with_the_request(change: Any) -> None:
    seen = scopes_of(change)
    assert [asgi for _, asgi in seen] == [PRISTINE] * 5
    assert all(list(scope) == list(seen[0][0]) for scope, _ in seen)
    assert len({scope["server"] for scope, _ in seen}) == 1
    assert seen[0][0]["server"][0] == "127.0.0.1"


def test_a_kept_dict_is_nobody_elses() -> None:
    kept: list[Scope] = []
    scopes_of(lambda scope: kept.append(scope["asgi"]))
    assert len({id(asgi) for asgi in kept}) == 5
    kept.clear()
    scopes_of(kept.append)
    assert len({id(scope["asgi"]) for scope in kept}) == 5


@pytest.mark.parametrize("root_path", ["", "/root"])
@pytest.mark.parametrize("change", [id, clear])
def test_a_path_is_the_requests_own_whatever_came_before(change: Any, root_path: str) -> None:
    """The last path and peer stay in the template, as long as they are the same."""
    targets = [
        "/a",
        "/a",
        "/a?q",
        "/%61",
        "/a",
        "/ab",
        "/ab/",
        "/ab",
        "http://x",
        "/",
        "/%41",
        "/A",
    ]
    raw = [target.partition("?")[0].replace("http://x", "/") for target in targets]
    found = [scope for scope, _ in scopes_of(change, targets, root_path)]
    assert [scope["raw_path"] for scope in found] == [f"{root_path}{path}".encode() for path in raw]
    decoded = [path.replace("%61", "a").replace("%41", "A") for path in raw]
    assert [scope["path"] for scope in found] == [root_path + path for path in decoded]
    assert [scope["query_string"] for scope in found] == [b"", b"", b"q"] + [b""] * 9
    assert len({scope["client"] for scope in found}) == 1
