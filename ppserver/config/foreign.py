"""Options of uvicorn and gunicorn: what to say to people who know those."""

from __future__ import annotations

_NO_TLS = "TLS is not there yet: put a proxy in front that speaks it"
_LOG_FILE = "logs go to standard error and output; --log-config says where else"
_FOREIGN = {
    "--reload": "reload when files change is not there yet; SIGHUP reloads under a supervisor",
    "-k": "--interface and --loop find out by themselves; leave it out",
    "--worker-class": "--interface and --loop find out by themselves; leave it out",
    "--worker-connections": "it is --limit-concurrency here",
    "--chdir": "it is --app-dir here",
    "--pythonpath": "it is --app-dir here",
    "--env": "give it as NAME=value before the command, or use --env-file",
    "-e": "give it as NAME=value before the command, or use --env-file",
    "--timeout": "contexts that hang are logged, not killed; --help lists the timeouts there are",
    "-t": "contexts that hang are logged, not killed; --help lists the timeouts there are",
    "--graceful-timeout": "it is --timeout-graceful-shutdown here",
    "--keep-alive": "it is --timeout-keep-alive here",
    "--max-requests": "it is --limit-max-requests here",
    "--max-requests-jitter": "it is --limit-max-requests-jitter here",
    "--limit-request-field_size": "it is --limit-request-head here",
    "--h11-max-incomplete-event-size": "it is --limit-request-head here",
    "--preload": "the application is loaded once in any case; see --load",
    "--access-logfile": _LOG_FILE,
    "--error-logfile": _LOG_FILE,
    "--log-file": _LOG_FILE,
    "--capture-output": _LOG_FILE,
    "-D": "leave it in the foreground, under systemd or in a container",
    "--daemon": "leave it in the foreground, under systemd or in a container",
    "--ssl-keyfile": _NO_TLS,
    "--ssl-certfile": _NO_TLS,
    "--keyfile": _NO_TLS,
    "--certfile": _NO_TLS,
    "--http": "there is one parser, in C; leave it out",
    "--ws": "WebSocket is not there yet; leave it out",
}


def hint(word: str) -> str:
    """What there is instead of an option of another server; ``""`` if it is none. A word may be
    a flag, or the name of a keyword or key."""
    return _FOREIGN.get(word) or _FOREIGN.get("--" + word.replace("_", "-")) or ""
