"""Sends a quote to whoever connects, and closes: `nc 127.0.0.1 7017`.

python examples/qotd.py
"""

import random

import parallel

QUOTES = [
    "Simplicity is prerequisite for reliability. (Edsger Dijkstra)",
    "Controlling complexity is the essence of computer programming. (Brian Kernighan)",
    "Premature optimization is the root of all evil. (Donald Knuth)",
]


class QuoteOfTheDay:
    """RFC 865."""

    def initial_bytes_to_send(self):
        return random.choice(QUOTES) + "\r\n"

    def send_complete(self, transport, send_id):
        transport.close()


server = parallel.server("127.0.0.1", 7017)
parallel.register(transport=server, protocol=QuoteOfTheDay)
parallel.run()
