"""A program on `parallel.http.server`; see tests/integration/test_parallel_http.py."""

import os
import time

import parallel
from parallel.http.server import (
    HttpServer,
    RangedRequest,
    html_response,
    json_serialization,
    make_routes,
    route,
    router,
    text_response,
)
from support import ExpectedError

FOLDER = os.environ["TEST_APP_DIRECTORY"]

routes = make_routes()
route_here = router(routes)


class Other(HttpServer):
    @route
    def merged(self, request, what=None):
        self.asked = getattr(self, "asked", 0) + 1
        return text_response(request, f"{type(self).__name__} {what} {self.asked}")

    @route
    def plain(self, request):
        return text_response(request, "never")


class Server(HttpServer):
    routes = routes
    root = FOLDER
    max_body_size = 100_000

    @route
    def plain(self, request):
        return text_response(request, "Hello")

    @route_here
    def original(self, request):
        """The way that PyParallel's programs are written: nothing is returned."""
        json_serialization(request, {"routes": sorted(routes)})

    @route_here("/elsewhere", "/else/where")
    def moved(self, request, rest=None):
        return text_response(request, f"{rest}")

    @route("/echo", methods=["POST", "PUT"])
    def echo(self, request):
        return request.data

    @route
    def arguments(self, request, path=None, limit="5", **others):
        return json_serialization(request, [path, limit, others])

    @route
    def nothing_else(self, request):
        return "nothing else"

    @route
    def needs(self, request, path, limit):
        return f"{path} {limit}"

    def get_old_style(self, request):
        text_response(request, "old style")

    def get_helper(self, number):
        raise NotImplementedError

    @route
    def about(self, request):
        response = request.response
        response.other_headers = ["X-One: 1", ("X-Two", "2")]
        return json_serialization(
            request,
            {
                "query": request.query,
                "path": request.path,
                "raw_path": request.raw_path,
                "fragment": request.fragment,
                "headers": dict(request.headers.items()),
                "command": request.command,
                "version": request.version,
                "keep_alive": request.keep_alive,
                "range": repr(request.range),
                "ip": request.transport.ip,
            },
        )

    @route
    def html(self, request, text=""):
        return html_response(request, f"<p>{text}</p>")

    @route
    def fail(self, request, how="raise"):
        if how == "raise":
            raise ExpectedError
        if how == "type":
            return 3
        request.response.other_headers = [f"X-Bad: a\r\nX-Evil: {how}"]
        return text_response(request, "sent")

    @route
    def wrong(self, request, code="418"):
        return self.error(request, int(code), "<no> coffee\r\nX-Evil: 1")

    @route
    def redirect_to(self, request, where="/plain"):
        return self.redirect(request, where)

    @route
    def file(self, request, name, piece=None):
        if piece:
            request.range = RangedRequest(piece)
        return self.sendfile(request, os.path.join(FOLDER, name))

    @route
    def big(self, request, count="1"):
        return text_response(request, "x" * int(count))

    @route
    def slow(self, request, seconds="0"):
        time.sleep(float(seconds))
        return "slow"

    @route
    def last(self, request):
        request.keep_alive = False
        return text_response(request, "bye")


class Impatient(Server):
    idle_timeout = 0.3
    max_request_time = 0.5


Server.merge(Other)
parallel.register(transport=parallel.server("127.0.0.1", 0), protocol=Server)
parallel.register(transport=parallel.server("127.0.0.1", 0), protocol=Impatient)
parallel.run()
