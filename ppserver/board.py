"""``python -m ppserver.board PID``: how the contexts of a running server are doing."""

from __future__ import annotations

import sys

from ppserver.observe.board import main

if __name__ == "__main__":
    sys.exit(main())
