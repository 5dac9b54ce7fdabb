"""ppserver beside its peers: `python -m contrib.bench --help`; docs/internals/performance.md."""
