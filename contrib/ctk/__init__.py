"""What programs written for PyParallel import from ``ctk``: see :mod:`ctk.util`."""
