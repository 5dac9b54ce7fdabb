"""Protocols that do what they should not; see tests/faults/test_protocols.py."""

import gc
import os
import threading
import weakref

import parallel
from support import ExpectedError, record


class Counted:
    """Objects of which none may be left once their connection is."""

    alive = weakref.WeakSet()
    lock = threading.Lock()

    def __init__(self):
        with Counted.lock:
            Counted.alive.add(self)


class Main(Counted):
    kept = []

    def data_received(self, transport, data):
        what = data.decode()
        if what == "raise":
            raise ExpectedError
        if what == "exit":
            raise SystemExit(7)
        if what == "interrupt":
            raise KeyboardInterrupt
        if what == "keep":
            Main.kept.append(transport)
            return b"kept"
        if what == "close kept":
            others = len(Main.kept)
            while Main.kept:
                Main.kept.pop().close()
            return f"closed {others}"
        if what == "close kept by threads":
            threads = [threading.Thread(target=one.close) for one in Main.kept]
            Main.kept.clear()
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            return b"closed"
        if what == "close thrice":
            for _ in range(3):
                transport.close()
            return b"once"
        if what == "thread":
            found = []

            def send():
                try:
                    transport.sendfile(None, __file__, None)
                except RuntimeError as error:
                    found.append(str(error))

            thread = threading.Thread(target=send)
            thread.start()
            thread.join()
            return found[0][:8]
        if what == "attributes":
            transport.mine = 1
            del transport.mine
            for name in ("mine", "_private", "no_such_thing"):
                try:
                    getattr(transport, name)
                except AttributeError:
                    continue
                return b"found " + name.encode()
            try:
                transport.ip = "1.2.3.4"
            except AttributeError:
                return f"fine, {type(transport.parent).__name__}"
        if what == "new":
            try:
                type(transport)()
            except TypeError:
                return b"no"
        if what == "big":
            return b"x" * 50_000_000
        if what == "many":
            return None
        if what == "alive":
            gc.collect()
            return f"{os.getpid()} {len(Counted.alive)} {len(Main.kept)}"
        return data

    def connection_closed(self, transport, op):
        record(f"closed {op}")
        raise ExpectedError


class Unmade:
    def __init__(self):
        raise ExpectedError

    def data_received(self, transport, data):
        record("never")


class BadHandler(Counted):
    def data_received(self, transport, data):
        raise ExpectedError

    def exception_handler(self, transport, exc):
        raise ExpectedError from exc


class BadStart(Counted):
    def connection_made(self, transport, data):
        raise ExpectedError

    def initial_bytes_to_send(self):
        return 42


class Http(Counted):
    http11 = True

    def exit(self, transport, data):
        raise SystemExit(7)

    def fine(self, transport, data):
        return b"fine"

    def close(self, transport, data):
        transport.close()
        raise ExpectedError

    def alive(self, transport, data):
        gc.collect()
        return str(len(Counted.alive))


class HttpUnmade:
    http11 = True

    def __init__(self):
        raise ExpectedError

    def fine(self, transport, data):
        return b"never"


PROTOCOLS = (Main, Unmade, BadHandler, BadStart, Http, HttpUnmade)
for protocol in PROTOCOLS:
    parallel.register(transport=parallel.server("127.0.0.1", 0), protocol=protocol)
