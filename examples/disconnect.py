"""Closes every connection as soon as it is there.

python examples/disconnect.py
"""

import parallel


class Disconnect:
    def connection_made(self, transport, data):
        transport.close()


server = parallel.server("127.0.0.1", 7009)
parallel.register(transport=server, protocol=Disconnect)
parallel.run()
