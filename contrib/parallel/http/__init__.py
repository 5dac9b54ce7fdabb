"""HTTP in Python over raw transports: see `parallel.http.server`."""
