"""The machine and this process: processors, GIL, terminal, folders, signal handlers."""
