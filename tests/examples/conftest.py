"""`examples` is the package that is tested here, not this folder.

pytest names the modules of this folder `examples.…`, since their path is relative to a folder on
`sys.path`, and makes a package `examples` for them. The real one takes its place.
"""

from __future__ import annotations

import importlib
import sys

if getattr(sys.modules.get("examples"), "__file__", None) is None:
    sys.modules.pop("examples", None)
    importlib.import_module("examples")
