"""``python -m ppserver``."""

from __future__ import annotations

import sys

from ppserver.cli import main

if __name__ == "__main__":
    sys.exit(main())
