"""Where contexts live: processes, threads, interpreters, or the very process that was started."""
