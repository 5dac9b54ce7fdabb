"""What applications rely on in the Task that runs them, one check per path.

``GET /check/NAME/STEP`` runs a step of a check and answers ``ok`` or the failure. The steps of
one check are sent one after the other on one connection, so they meet the same context, and, on
a server that reuses a Task, quite possibly the same Task.
"""

from battery.application import app

__all__ = ["app"]
