"""Sends back what it gets: `nc 127.0.0.1 7007`.

python examples/echo.py
"""

import parallel


class Echo:
    """RFC 862."""

    def data_received(self, transport, data):
        return data


server = parallel.server("127.0.0.1", 7007)
parallel.register(transport=server, protocol=Echo)
parallel.run()
