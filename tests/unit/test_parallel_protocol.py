"""What protocol classes say about themselves, and what a program may register."""

from __future__ import annotations

import re
from typing import Any

import pytest
from parallel.protocol import describe
from parallel.registry import Registry, ServerTransport

from ppserver._native import Core


class Empty:
    pass


class Full:
    throughput = True
    low_latency = True
    line_mode = True
    wait_for_eol = False
    max_line_length = 10
    rate_limit = 1000
    max_sync_recv_attempts = 3
    max_sync_send_attempts = 0

    def line_received(self, transport: Any, line: bytes) -> None:
        pass

    def helper(self) -> None:
        pass


class Http:
    http11 = True
    limit = 3
    nested = Empty

    def _hidden(self) -> None:
        pass

    def shown(self, transport: Any, data: bytes) -> None:
        pass

    @staticmethod
    def still(transport: Any, data: bytes) -> None:
        pass

    def exception_handler(self, transport: Any, exc: Exception) -> None:
        pass


def test_defaults() -> None:
    found = describe(Empty, None)
    assert found.raw
    assert found.is_class
    assert not found.line_mode
    assert found.wait_for_eol
    assert (found.receive_again, found.send_again) == (0, 0)
    assert (found.initial, found.initial_args) == (None, -1)
    assert found.callbacks == found.routes == ()


def test_attributes() -> None:
    found = describe(Full, "parent")
    assert found.parent == "parent"
    assert found.line_mode
    assert found.low_latency
    assert not found.wait_for_eol
    assert found.line_max == 10
    assert found.rate_limit == 1000
    assert (found.receive_again, found.send_again) == (2, 0)
    assert found.callbacks == ("line_received",)
    assert found.routes == ()


def test_routes() -> None:
    found = describe(Http, None)
    assert not found.raw
    assert found.routes == ("shown", "still")
    assert found.callbacks == ("exception_handler",)
    instance = Http()
    assert describe(instance, None).maker is instance
    assert not describe(instance, None).is_class


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"abc", (b"abc", -1)),
        (bytearray(b"abc"), (b"abc", -1)),
        ("\N{SNOWMAN}", ("\N{SNOWMAN}".encode(), -1)),
        (lambda self: b"", (None, 0)),
        (lambda self, transport: b"", (None, 1)),
        (lambda *args: b"", (None, 1)),
        (staticmethod(lambda: b""), (None, 0)),
        (staticmethod(lambda transport: b""), (None, 1)),
        (classmethod(lambda cls: b""), (None, 0)),
        (classmethod(lambda cls, transport: b""), (None, 1)),
    ],
)
def test_bytes_to_send(value: Any, expected: tuple[bytes | None, int]) -> None:
    protocol = type("Protocol", (), {"initial_bytes_to_send": value})
    found = describe(protocol, None)
    assert (found.initial, found.initial_args) == expected
    found = describe(protocol(), None)
    assert (found.initial, found.initial_args) == expected


@pytest.mark.parametrize(
    ("attributes", "problem"),
    [
        ({"concurrency": True, "throughput": True}, "exclude each other"),
        ({"line_mode": True}, "without a method line_received"),
        ({"rate_limit": -1}, "rate_limit: expected 0 to"),
        ({"max_line_length": -1}, "max_line_length: expected 0 to"),
        ({"max_sync_recv_attempts": 1000}, "max_sync_recv_attempts: expected 0 to 256"),
        ({"max_sync_send_attempts": "3"}, "max_sync_send_attempts: expected"),
        ({"next_bytes_to_send": 3}, "next_bytes_to_send: expected bytes"),
    ],
)
def test_contradictions(attributes: dict[str, Any], problem: str) -> None:
    with pytest.raises((TypeError, ValueError), match=problem):
        describe(type("Wrong", (), attributes), None)


def test_registering() -> None:
    registry = Registry()
    transport = ServerTransport("::1", 80)
    registry.add(transport, Empty)
    assert registry.addresses == [["[::1]:80"]]
    assert registry.protocols[0].parent is transport
    assert len(registry.table()) == 1
    with pytest.raises(ValueError, match="has a protocol already"):
        registry.add(transport, Empty)
    with pytest.raises(TypeError, match="what server\\(\\) or client"):
        registry.add("localhost", Empty)  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="not running"):
        registry.stop()


def test_a_protocol_that_is_refused_leaves_nothing() -> None:
    registry = Registry()
    transport = ServerTransport()
    with pytest.raises(ValueError, match="line_mode"):
        registry.add(transport, type("Wrong", (), {"line_mode": True}))
    assert registry.servers == []
    registry.add(transport, Empty)


@pytest.mark.parametrize("host", ["", "0.0.0.0"])
def test_all_interfaces(host: str) -> None:
    assert ServerTransport(host, 8080).address == "0.0.0.0:8080"


@pytest.mark.parametrize(("host", "port"), [("a", -1), ("a", 65536), ("a", "80"), (None, 80)])
def test_addresses_that_are_none(host: Any, port: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="expected"):
        ServerTransport(host, port)


def test_methods_of_an_http_server_in_python_are_no_paths() -> None:
    server = pytest.importorskip("parallel.http.server")

    class Server(server.HttpServer):  # type: ignore[name-defined,misc]
        http11 = True

        def hello(self, transport: Any, data: bytes) -> bytes:
            return data

    assert describe(Server, None).routes == ("hello",)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"raw": None}, "a description without 'raw'"),
        ({"line_max": "1"}, "line_max: expected an int from 0 to 2147483647, got '1'"),
        ({"send_again": 256}, "send_again: expected an int from 0 to 255, got 256"),
        ({"next_args": -2}, "next_args: expected an int from -1 to 1, got -2"),
        ({"idle_ms": 2**64}, "idle_ms: expected"),
        ({"routes": []}, "routes: expected a tuple, got list"),
    ],
)
def test_the_core_checks_descriptions(changes: dict[str, Any], problem: str) -> None:
    core = Core()
    entry = describe(Empty, None).as_mapping() | changes
    if changes == {"raw": None}:
        del entry["raw"]
    with pytest.raises((TypeError, ValueError), match=re.escape(problem)):
        core.serve_parallel((entry,), on_error=print)
    core.serve_parallel((describe(Empty, None).as_mapping(),), on_error=print)
    core.close()
