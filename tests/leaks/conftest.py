"""What tests of faults and leaks share."""

from __future__ import annotations

import serving

# Only this server is held to what is tested here.
collect_ignore_glob = [] if serving.PEER == "ppserver" else ["test_*.py"]
