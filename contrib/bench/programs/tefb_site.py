"""examples/tefb_asgi.py, as an object that every server takes."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "examples"))

import tefb_asgi

app = tefb_asgi.make()
