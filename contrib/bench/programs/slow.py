"""The parallel API's hello world, read in Python by h11."""

import parallel
from parallel.http.server import HttpServer, route, text_response


class Plain(HttpServer):
    @route
    def plain(self, request):
        return text_response(request, "Hello, world!")


parallel.register(transport=parallel.server("127.0.0.1", 0), protocol=Plain)
parallel.run()
