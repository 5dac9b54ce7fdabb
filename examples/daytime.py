"""Sends the time to whoever connects, and closes: `nc 127.0.0.1 7013`.

python examples/daytime.py
"""

import time

import parallel


class Daytime:
    """RFC 867."""

    def connection_made(self, transport, data):
        transport.close()  # Once what is returned has been sent.
        return time.strftime("%A, %B %d, %Y %H:%M:%S-%Z\r\n")


server = parallel.server("127.0.0.1", 7013)
parallel.register(transport=server, protocol=Daytime)
parallel.run()
