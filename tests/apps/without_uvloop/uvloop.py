"""On the path before it, this hides an installed uvloop."""

raise ImportError("hidden by the test")
