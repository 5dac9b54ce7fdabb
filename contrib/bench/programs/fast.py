"""The parallel API's hello world, read by the native parser."""

import parallel


class Plain:
    http11 = True

    def plain(self, transport, data):
        return b"Hello, world!"


parallel.register(transport=parallel.server("127.0.0.1", 0), protocol=Plain)
parallel.run()
