"""Who the client is, as an application is told: JSON by ASGI and by WSGI."""

from __future__ import annotations

import json
from typing import Any


async def app(scope: Any, receive: Any, send: Any) -> None:
    names = sorted(name.decode() for name, _ in scope["headers"])
    told = {"client": scope["client"], "scheme": scope["scheme"], "names": names}
    told |= {name: str(scope[name]) for name in ("path", "raw_path", "root_path")}
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": json.dumps(told).encode()})


def wsgi(environ: Any, start_response: Any) -> list[bytes]:
    names = [name[5:].lower().replace("_", "-") for name in environ if name.startswith("HTTP_")]
    client = environ["REMOTE_ADDR"] and [environ["REMOTE_ADDR"], int(environ["REMOTE_PORT"])]
    told = {"client": client, "scheme": environ["wsgi.url_scheme"], "names": sorted(names)}
    told |= {name: environ[name] for name in ("SCRIPT_NAME", "PATH_INFO")}
    start_response("200 OK", [])
    return [json.dumps(told).encode()]
