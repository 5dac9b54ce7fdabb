"""A server whose answer is what was asked, for clients that applications under test hold.

python echoing.py http|grpc: prints where it listens, and serves until its input ends.
"""

from __future__ import annotations

import http.server
import sys
import threading
from typing import Any


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = self.path.strip("/").encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        pass


def serve_http() -> str:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}"


def serve_grpc() -> str:
    import concurrent.futures

    import grpc

    server = grpc.server(concurrent.futures.ThreadPoolExecutor(8))
    echo = grpc.unary_unary_rpc_method_handler(lambda request, context: request)
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("echo", {"echo": echo})])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    globals()["server"] = server
    return f"127.0.0.1:{port}"


if __name__ == "__main__":
    print({"http": serve_http, "grpc": serve_grpc}[sys.argv[1]](), flush=True)
    sys.stdin.read()
