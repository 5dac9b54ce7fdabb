"""The parallel API's hello world, without HTTP: whatever comes, the same bytes go."""

import parallel

ANSWER = (
    b"HTTP/1.1 200 OK\r\nServer: ppserver\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\n"
    b"Content-Type: text/plain\r\nContent-Length: 13\r\n\r\nHello, world!"
)


class Plain:
    def data_received(self, transport, data):
        return ANSWER


parallel.register(transport=parallel.server("127.0.0.1", 0), protocol=Plain)
parallel.run()
