"""The machine and this process: processors, cgroups, GIL, terminal, folders, signal handlers."""
