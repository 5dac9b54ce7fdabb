"""`python -m contrib.bench`: beside the peers; with a tool's name first: what else is measured."""

import importlib
import sys

TOOLS = ("scaling", "once", "contexts", "balance", "model", "wiki", "gate", "heads")

if len(sys.argv) > 1 and sys.argv[1] in TOOLS:
    importlib.import_module(f"{__package__}.{sys.argv[1]}").main(sys.argv[2:])
else:
    from .run import main

    main()
