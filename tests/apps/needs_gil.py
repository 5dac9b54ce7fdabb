"""An application whose import switches the GIL of a free-threaded Python on."""

import single_phase
from places import plain as app

__all__ = ["app", "single_phase"]
