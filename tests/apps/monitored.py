"""The applications of `leaving`, watched by Sentry."""

from __future__ import annotations

import monitoring  # noqa: F401  # Puts the hooks of Sentry in place, before anything else.
from leaving import app  # noqa: F401
