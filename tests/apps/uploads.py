"""WSGI applications that are uploaded to, by Django, Flask and without a framework.

`/state` says how many of their calls have begun and ended. Sentry watches all of them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import django
import monitoring  # noqa: F401  # Puts the hooks of Sentry in place.
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse
from django.urls import path
from flask import Flask, request
from sentry_sdk.integrations.wsgi import SentryWsgiMiddleware

settings.configure(
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    SECRET_KEY="of the test",
    DATA_UPLOAD_MAX_MEMORY_SIZE=None,
    LOGGING={
        "version": 1,
        "disable_existing_loggers": False,
        "handlers": {"console": {"class": "logging.StreamHandler"}},
        "loggers": {"django": {"handlers": ["console"]}},
    },
)
django.setup()


def sizes(files: Any) -> str:
    return " ".join(str(len(file.read())) for file in files)


def django_files(request: HttpRequest) -> HttpResponse:
    return HttpResponse(sizes(request.FILES.values()))


def django_body(request: HttpRequest) -> HttpResponse:
    return HttpResponse(str(len(request.body)))


urlpatterns = [path("django/files", django_files), path("django/body", django_body)]
of_django = get_wsgi_application()
of_flask = Flask(__name__)


@of_flask.post("/flask/files")
def flask_files() -> str:
    return sizes(request.files.values())


@of_flask.post("/flask/body")
def flask_body() -> str:
    return str(len(request.data))


def bare(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
    body = environ["wsgi.input"].read()
    start_response("200 OK", [])
    return [b"%d" % len(body)]


APPLICATIONS = {"django": of_django, "flask": of_flask, "bare": SentryWsgiMiddleware(bare)}
lock = threading.Lock()
counts = {"begun": 0, "ended": 0}


def count(what: str) -> None:
    with lock:
        counts[what] += 1


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
    kind = environ["PATH_INFO"].split("/")[1]
    if kind == "state":
        start_response("200 OK", [])
        return [repr(counts).encode()]
    count("begun")
    try:
        return APPLICATIONS[kind](environ, start_response)
    finally:
        count("ended")
