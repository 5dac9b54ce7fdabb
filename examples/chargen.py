"""Sends characters for as long as somebody reads them: `nc 127.0.0.1 7019 | head`.

python examples/chargen.py
"""

import parallel

LINE = 72
CHARACTERS = bytes(range(33, 127))


def chargen(number: int) -> bytes:
    """Line ``number`` of the endless text, with its line end."""
    start = number % len(CHARACTERS)
    return (CHARACTERS + CHARACTERS)[start : start + LINE] + b"\r\n"


class Chargen:
    """RFC 864."""

    def initial_bytes_to_send(self):
        return chargen(0)

    def send_complete(self, transport, send_id):
        return chargen(send_id)


server = parallel.server("127.0.0.1", 7019)
parallel.register(transport=server, protocol=Chargen)
parallel.run()
