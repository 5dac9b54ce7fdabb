"""The API of PyParallel on ppserver: protocol classes with synchronous callbacks, on every core.

    import parallel

    class Echo:
        def data_received(self, transport, data):
            return data

    server = parallel.server("127.0.0.1", 8080)
    parallel.register(transport=server, protocol=Echo)
    parallel.run()

What a program has loaded before ``run()`` is there once, and every context reads it. Callbacks of
one connection run one after the other, those of different connections in parallel.

Some names are those of built-ins: ``from parallel import *`` is not for programs that use both.
"""

from parallel.contexts import (
    active_contexts,
    active_count,
    active_hogs,
    active_io_loops,
    is_active,
    persisted_contexts,
)
from parallel.files import (
    CachingBehavior,
    close,
    open,  # noqa: A004
    read,
    readfile,
    write,
    writefile,
)
from parallel.main_thread import call_from_main_thread, call_from_main_thread_and_wait
from parallel.program import client, register, run, run_once, server
from parallel.stats import (
    context_stats,
    cpu_count,
    memory_stats,
    refresh_memory_stats,
    socket_stats,
    sys_stats,
)
from parallel.sync import (
    critical_section,
    dict,  # noqa: A004
    list,  # noqa: A004
    object,  # noqa: A004
    prewait,
    protect,
    protected,
    read_lock,
    read_unlock,
    signal,
    synchronized,
    try_read_lock,
    try_write_lock,
    unprotect,
    write_lock,
    write_unlock,
)
from parallel.system import (
    debug,
    disable_heap_override,
    enable_heap_override,
    gmtime,
    is_heap_override_active,
    is_parallel_thread,
    print,  # noqa: A004
    rdtsc,
    seh_eav_in_io_callback,
    stderr,
    stdout,
    thread_seq_id,
    was_parallel_thread,
)
from parallel.work import (
    map,  # noqa: A004
    submit_io,
    submit_read_io,
    submit_timer,
    submit_wait,
    submit_work,
    submit_write_io,
)

__all__ = [
    "CachingBehavior",
    "active_contexts",
    "active_count",
    "active_hogs",
    "active_io_loops",
    "call_from_main_thread",
    "call_from_main_thread_and_wait",
    "client",
    "close",
    "context_stats",
    "cpu_count",
    "critical_section",
    "debug",
    "dict",
    "disable_heap_override",
    "enable_heap_override",
    "gmtime",
    "is_active",
    "is_heap_override_active",
    "is_parallel_thread",
    "list",
    "map",
    "memory_stats",
    "object",
    "open",
    "persisted_contexts",
    "prewait",
    "print",
    "protect",
    "protected",
    "rdtsc",
    "read",
    "read_lock",
    "read_unlock",
    "readfile",
    "refresh_memory_stats",
    "register",
    "run",
    "run_once",
    "seh_eav_in_io_callback",
    "server",
    "signal",
    "socket_stats",
    "stderr",
    "stdout",
    "submit_io",
    "submit_read_io",
    "submit_timer",
    "submit_wait",
    "submit_work",
    "submit_write_io",
    "synchronized",
    "sys_stats",
    "thread_seq_id",
    "try_read_lock",
    "try_write_lock",
    "unprotect",
    "was_parallel_thread",
    "write",
    "write_lock",
    "write_unlock",
    "writefile",
]
