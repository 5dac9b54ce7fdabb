"""One context: a worker of the server with its own event loop, in whatever process or thread."""
