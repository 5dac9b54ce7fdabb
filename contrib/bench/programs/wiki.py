"""The class of examples/wiki/wiki.py."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

import parallel

from examples.wiki.wiki import Wiki

parallel.register(transport=parallel.server("127.0.0.1", 0), protocol=Wiki)
parallel.run()
