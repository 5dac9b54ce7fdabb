"""The least that a web server can do, as fast as this one can: `curl localhost:8080/plaintext`.

python examples/plaintext_fast.py
"""

import parallel


class Plaintext:
    http11 = True

    def plaintext(self, transport, data):
        return b"Hello, World!"


server = parallel.server("127.0.0.1", 8080)
parallel.register(transport=server, protocol=Plaintext)
parallel.run()
