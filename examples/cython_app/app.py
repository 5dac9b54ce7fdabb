"""A handler in Cython that computes without the GIL: pictures of the Mandelbrot set.

pip install examples/cython_app
python examples/cython_app/app.py
curl 'localhost:8080/picture?size=600&x=-0.5&y=0&width=3' >set.pgm

While one picture is computed, the core that computes it answers other requests.
"""

import parallel
from parallel.http.server import HttpServer, route

try:
    import mandelbrot
except ModuleNotFoundError:
    raise SystemExit("the handler is not compiled: pip install examples/cython_app") from None


class Pictures(HttpServer):
    @route
    def picture(self, request, size="300", x="-0.5", y="0", width="3", iterations="255"):
        try:
            numbers = int(size), float(x), float(y), float(width), int(iterations)
            pixels = mandelbrot.picture(*numbers)
        except (ValueError, OverflowError) as error:
            return self.error(request, 400, str(error))
        return self.response(request, 200, None, pixels, "image/x-portable-graymap")


server = parallel.server("127.0.0.1", 8080)
parallel.register(transport=server, protocol=Pictures)
parallel.run()
