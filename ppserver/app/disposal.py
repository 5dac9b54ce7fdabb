"""Close what libraries opened while the application was imported and open again by themselves.

Only by ways that the libraries document, and only what is idle: a connection that somebody holds
stays, and :mod:`ppserver.app.opened` still sees it. Nothing here may fail a start that the
application survives: a library that is imported but not configured, or of another version, is
passed over.
"""

from __future__ import annotations

import gc
import logging
import sys
import warnings
from collections.abc import Callable
from typing import Any

from ppserver.app.opened import instances

logger = logging.getLogger("ppserver.error")


def dispose() -> None:
    """Close idle connections of the libraries that are loaded. Never raises."""
    with warnings.catch_warnings():
        # Connections of asynchronous drivers are closed by the end of their objects.
        warnings.simplefilter("ignore", ResourceWarning)
        for name, close in _KNOWN.items():
            module = sys.modules.get(name)
            if module is None:
                continue
            try:
                close(module)
            except Exception as error:
                logger.debug("Connections of %s are left as they are: %s", name, error)
        gc.collect()


def _django(module: Any) -> None:
    """Its connections are per thread, and made anew at the next query."""
    if sys.modules["django.conf"].settings.configured:
        module.connections.close_all()


def _sqlalchemy(module: Any) -> None:
    """``Engine.dispose()`` before a fork: the pool is replaced by an empty one.

    Not for databases in memory, which live as long as their connection.
    """
    for engine in instances(module.Engine):
        database = engine.url.database or ""
        if engine.dialect.name == "sqlite" and (
            not database or ":memory:" in database or "mode=memory" in str(engine.url)
        ):
            continue
        # Closing by an asynchronous driver takes a running loop; letting go does not.
        engine.dispose(close=not engine.dialect.is_async)


def _redis(module: Any) -> None:
    for pool in instances(module.ConnectionPool):
        pool.disconnect(inuse_connections=False)


def _urllib3(module: Any) -> None:
    """Also what requests and botocore keep alive."""
    for manager in instances(module.PoolManager):
        manager.clear()


_KNOWN: dict[str, Callable[[Any], None]] = {
    "django.db": _django,
    "sqlalchemy.engine": _sqlalchemy,
    "redis.connection": _redis,
    "urllib3": _urllib3,
}
