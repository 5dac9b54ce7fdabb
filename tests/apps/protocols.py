"""A program of the parallel API with a server for each kind of protocol, on ports of their own.

The order is what the tests know them by: see ORDER in tests/protocolsite.py.
"""

import os
import threading
import time

import parallel
from support import record

LOADED_BY = os.getpid()


class Echo:
    def connection_made(self, transport, data):
        assert data is None
        assert transport.ip == "127.0.0.1"
        assert transport.parent is servers["echo"]
        assert transport.protocol is self
        self.sent = 0

    def data_received(self, transport, data):
        self.sent += 1
        if data.startswith(b"quit"):
            transport.close()
            return bytearray(b"bye")
        if data.startswith(b"who"):
            return f"{os.getpid()}.{threading.get_native_id()} {LOADED_BY}"
        if data.startswith(b"numbers"):
            return (
                f"{self.sent} {transport.recv_id} {transport.send_id} {transport.next_send_id()} "
                f"{transport.total_bytes_received} {transport.total_bytes_sent} "
                f"{transport.num_bytes_just_received} {transport.elapsed() >= 0} "
                f"{transport.parent.port}"
            )
        if data.startswith(b"slow"):
            time.sleep(0.2)
        if data.startswith(b"stop"):
            transport.shutdown_server()
        if data.startswith(b"nothing"):
            record("nothing")
            return None
        return data

    def connection_closed(self, transport, op):
        record(f"closed {op}")

    def connection_lost(self, transport, exc):
        record("lost")


class Lines:
    line_mode = True
    max_line_length = 100

    def line_received(self, transport, line):
        return b"[" + line + b"]"

    def connection_error(self, transport, error):
        record(f"error {error}")


class Chargen:
    def initial_bytes_to_send(self):
        return b"0\n"

    def send_complete(self, transport, send_id):
        return b"%d\n" % send_id


class Cheating:
    """Answers before it is asked."""

    low_latency = True
    initial_bytes_to_send = b"first"
    next_bytes_to_send = "next"


class Failing:
    def data_received(self, transport, data):
        if data == b"type":
            return 42
        raise ValueError("expected by the test")


class Handling:
    def data_received(self, transport, data):
        raise ValueError(data.decode())

    def exception_handler(self, transport, exc):
        return f"handled {type(exc).__name__} {exc}"


class Sent:
    concurrency = True
    max_sync_recv_attempts = 3
    max_sync_send_attempts = 2

    def data_received(self, transport, data):
        return data * 1000

    def data_sent(self, transport, data):
        record(f"sent {len(data)}")

    def send_failed(self, transport, send_id):
        record(f"failed {send_id}")


class Limited:
    rate_limit = 2_000_000

    def data_received(self, transport, data):
        return b"x" * 1_100_000


class Files:
    """Sends parts of files: `path offset count`; without numbers all of it."""

    line_mode = True

    def line_received(self, transport, line):
        path, *numbers = line.decode().split("|")
        if numbers:
            transport.sendfile_ranged("<", path, b">", *map(int, numbers))
        else:
            transport.sendfile(b"<", path, None)
        return b"|"

    def exception_handler(self, transport, exc):
        return f"{type(exc).__name__}|"


class Http:
    http11 = True

    def __init__(self):
        self.count = 0

    def plaintext(self, transport, data):
        return b"Hello, World!"

    def text(self, transport, data):
        return "\N{SNOWMAN}"

    def mapping(self, transport, data):
        return {"message": "Hello, \N{SNOWMAN}"}

    def no_json(self, transport, data):
        return {"message": object()}

    def body(self, transport, data):
        return data

    def count_up(self, transport, data):
        self.count += 1
        return str(self.count)

    def nothing(self, transport, data):
        return None

    def fail(self, transport, data):
        raise ValueError("expected by the test")

    def wrong(self, transport, data):
        return 42

    def bye(self, transport, data):
        transport.close()
        return b"bye"

    def slow(self, transport, data):
        time.sleep(0.2)
        return b"slow"

    def big(self, transport, data):
        return b"x" * 1_000_000

    def who(self, transport, data):
        return f"{os.getpid()}.{threading.get_native_id()}"

    def file(self, transport, data):
        transport.sendfile(None, __file__, None)


class One:
    """An instance: shared by all connections of a context."""

    http11 = True

    def __init__(self, name):
        self.name = name

    def name_of(self, transport, data):
        return self.name


class Quiet:
    idle_timeout = 0.2

    def data_received(self, transport, data):
        if data.startswith(b"slow"):
            time.sleep(0.6)
        return data

    def connection_timeout(self, transport, reason):
        record(f"timed out {reason}")


PROTOCOLS = {
    "echo": Echo,
    "lines": Lines,
    "chargen": Chargen,
    "cheating": Cheating,
    "failing": Failing,
    "handling": Handling,
    "sent": Sent,
    "files": Files,
    "limited": Limited,
    "http": Http,
    "one": One("the one"),
    "quiet": Quiet,
}
servers = {name: parallel.server("127.0.0.1", 0) for name in PROTOCOLS}
for name, protocol in PROTOCOLS.items():
    parallel.register(transport=servers[name], protocol=protocol)

if __name__ == "__main__":
    parallel.run()
