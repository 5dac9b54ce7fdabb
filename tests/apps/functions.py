"""A program of the parallel API that uses its functions: in the main thread, beside callbacks.

See tests/integration/test_parallel_functions.py.
"""

import json
import os
import threading
import time

import parallel
from support import EXPECTED, ExpectedError, record

LOADED_BY = os.getpid()
state = {"count": 0}


@parallel.call_from_main_thread_and_wait
def count(by, *, scale=1):
    assert threading.current_thread() is threading.main_thread()
    state["count"] += by * scale
    return state["count"], os.getpid(), threading.get_native_id()


@parallel.call_from_main_thread
def count_later(by):
    count(by)
    record(f"later {state['count']}")


@parallel.call_from_main_thread_and_wait
def fail():
    raise ExpectedError


@parallel.call_from_main_thread_and_wait
def fail_unlike_any():
    class LocalError(Exception):
        pass

    raise LocalError(f"local, {EXPECTED}")


@parallel.call_from_main_thread
def fail_later():
    raise ExpectedError


@parallel.call_from_main_thread_and_wait
def size(data):
    return len(data), data[::-1]


@parallel.call_from_main_thread_and_wait
def numbers_there():
    return dict(parallel.socket_stats(http)), dict(parallel.context_stats())


def answer(value):
    return json.dumps(value)


class Http:
    http11 = True

    def count(self, transport, data):
        return answer([*count(int(data or 1), scale=2), os.getpid(), LOADED_BY])

    def count_later(self, transport, data):
        return answer(count_later(5))

    def state(self, transport, data):
        return answer(state["count"])

    def fail(self, transport, data):
        caught = []
        for function in (fail, fail_unlike_any):
            try:
                function()
            except Exception as error:
                caught.append([type(error).__name__, str(error)])
        fail_later()
        return answer(caught)

    def large(self, transport, data):
        sent = os.urandom(3_000_000)
        length, turned = size(sent)
        return answer([length, turned[::-1] == sent])

    def decorated_late(self, transport, data):
        late = parallel.call_from_main_thread_and_wait(os.getpid)
        try:
            return answer(late())
        except RuntimeError as error:
            return answer(str(error))

    def unpicklable(self, transport, data):
        try:
            return answer(count(1, scale=lambda: 0))
        except Exception as error:
            return answer(type(error).__name__)

    def many_at_once(self, transport, data):
        return answer(parallel.map(lambda number: count(0)[1] - number * 0, range(20)))

    def work(self, transport, data):
        done, seen = threading.Event(), []

        def result(value):
            seen.append([value, parallel.is_parallel_thread()])
            done.set()

        parallel.submit_work(pow, (3,), {"exp": 4} if data else None, result, result)
        assert done.wait(10)
        value, there = seen[0]
        return answer([value if isinstance(value, int) else type(value).__name__, there])

    def timer(self, transport, data):
        done = threading.Event()
        before = time.monotonic()
        cancelled = parallel.submit_timer(0.01, record, ("cancelled",))
        assert cancelled.cancel()
        parallel.submit_timer(0.05, done.set)
        assert done.wait(10)
        return answer(time.monotonic() - before >= 0.05)

    def wait(self, transport, data):
        event, seen, done = threading.Event(), [], threading.Event()
        parallel.submit_wait(event, seen.append, ("set",), callback=lambda _: done.set())
        parallel.signal(event)
        assert done.wait(10)
        done.clear()
        never = parallel.prewait(threading.Event())

        def failed(error):
            seen.append(type(error).__name__)
            done.set()

        parallel.submit_wait(never, seen.append, ("never",), errback=failed, timeout=0.01)
        assert done.wait(10)
        return answer(seen)

    def file_io(self, transport, data):
        path = f"{os.environ['TEST_APP_DIRECTORY']}/{os.getpid()}-{threading.get_native_id()}"
        done, seen = threading.Event(), []
        with parallel.open(path, "w+") as file:

            def written(number):
                seen.append(number)
                parallel.submit_read_io(file, 5, read, offset=1)

            def read(found):
                seen.append(found.decode())
                done.set()

            parallel.submit_write_io(file, b"written", written, offset=0)
            assert done.wait(10)
        return answer([*seen, transport.readfile(path).decode()])

    def map(self, transport, data):
        return answer(parallel.map(lambda one, two: one * two, range(100), range(100)))

    def head(self, transport, data):
        return transport.http_header

    def attributes(self, transport, data):
        for one in (transport, transport.parent):
            for name in ATTRIBUTES:
                value = getattr(one, name)
                if name not in ("ip", "host", "parent", "protocol", "http_header"):
                    assert isinstance(value, int), (name, value)
        for name in METHODS:
            assert callable(getattr(transport, name)), name
        watch = transport
        assert 0 <= watch.stopwatch_elapsed <= watch.stopwatch_stop - watch.stopwatch_start + 1_000
        assert watch.stopwatch_elapsed / watch.stopwatch_frequency <= watch.elapsed() + 1
        return answer(len(ATTRIBUTES) + len(METHODS))

    def threads(self, transport, data):
        return answer(
            [
                parallel.is_parallel_thread(),
                parallel.was_parallel_thread(),
                parallel.thread_seq_id() >= 1,
                transport.thread_seq_id_bitmap == 1 << (parallel.thread_seq_id() - 1),
            ]
        )

    def stats(self, transport, data):
        active = [parallel.active_contexts(), parallel.active_io_loops(), parallel.active_hogs()]
        return answer(
            [
                dict(parallel.socket_stats(transport.parent)),
                dict(parallel.context_stats()),
                active,
                [parallel.persisted_contexts(), parallel.active_count(), parallel.is_active()],
            ]
        )

    def stats_there(self, transport, data):
        return answer(numbers_there())


ATTRIBUTES = [
    "ip",
    "host",
    "port",
    "sock_family",
    "sock_type",
    "sock_proto",
    "sock_timeout",
    "parent",
    "num_children",
    "accepts_posted",
    "retired_clients",
    "fd_accept_count",
    "clients_connected",
    "clients_disconnecting",
    "num_accepts_to_post",
    "total_clients_reused",
    "total_clients_recycled",
    "target_accepts_posted",
    "client_connected_count",
    "total_accepts_attempted",
    "negative_accepts_to_post_count",
    "sem_acquired",
    "sem_released",
    "sem_timeout",
    "sem_count",
    "sem_release_err",
    "stopwatch_frequency",
    "stopwatch_start",
    "stopwatch_stop",
    "stopwatch_elapsed",
    "num_bytes_just_sent",
    "num_bytes_just_received",
    "total_bytes_sent",
    "total_bytes_received",
    "recvbuf_size",
    "sendbuf_size",
    "send_id",
    "recv_id",
    "ioloops",
    "last_thread_id",
    "this_thread_id",
    "thread_seq_id_bitmap",
    "protocol",
    "http_header",
]
METHODS = [
    "close",
    "elapsed",
    "shutdown",
    "shutdown_server",
    "sendfile",
    "sendfile_ranged",
    "writefile",
    "readfile",
    "next_send_id",
]


class Echo:
    def data_received(self, transport, data):
        assert transport.http_header is None
        return data


class Asker:
    """A client of the echo server: says a word, records what comes, and ends."""

    def connection_made(self, transport, data):
        record(f"connected to {transport.port} {transport.parent is client}")
        return b"word"

    def data_received(self, transport, data):
        record(f"client got {data.decode()}")
        transport.close()

    def connection_closed(self, transport, op):
        record(f"client closed {op}")


class Refused:
    def connection_error(self, transport, exc):
        record(f"refused {transport is nowhere} {type(exc).__name__}")


http = parallel.server("127.0.0.1", 0)
parallel.register(transport=http, protocol=Http)
echo_port = int(os.environ["TEST_ECHO_PORT"])
echo = parallel.server("127.0.0.1", echo_port)
parallel.register(transport=echo, protocol=Echo)
client = parallel.client("127.0.0.1", echo_port)
parallel.register(transport=client, protocol=Asker)
nowhere = parallel.client("127.0.0.1", int(os.environ["TEST_DEAD_PORT"]))
parallel.register(transport=nowhere, protocol=Refused())

loaded = []
parallel.submit_work(lambda: loaded.append(parallel.is_parallel_thread()))
parallel.submit_timer(0, lambda: record(f"timer {loaded}"))
assert parallel.is_parallel_thread() is False
parallel.run()
