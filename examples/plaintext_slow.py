"""The same as plaintext_fast.py, but HTTP is read in Python: `curl localhost:8080/plaintext`.

python examples/plaintext_slow.py
"""

import parallel
from parallel.http.server import HttpServer, route, text_response


class Plaintext(HttpServer):
    @route
    def plaintext(self, request):
        return text_response(request, "Hello, World!")


server = parallel.server("127.0.0.1", 8080)
parallel.register(transport=server, protocol=Plaintext)
parallel.run()
