"""A Flask application: streams, uploads, sessions, errors, files."""

from __future__ import annotations

import hashlib
import os
import pathlib
import threading
from collections.abc import Iterator
from typing import Any

from flask import (
    Flask,
    Response,
    abort,
    after_this_request,
    flash,
    g,
    get_flashed_messages,
    jsonify,
    redirect,
    render_template_string,
    request,
    send_file,
    session,
    stream_with_context,
    url_for,
)
from support import ExpectedError, record

FILES = pathlib.Path(os.environ["TEST_APP_DIRECTORY"])
LARGE = FILES / "large.bin"
if not LARGE.exists():
    scratch = FILES / f"large.{os.getpid()}"
    scratch.write_bytes(bytes(range(256)) * 4096)
    scratch.rename(LARGE)

app = Flask(__name__)
app.secret_key = "only a test"


@app.before_request
def before() -> None:
    g.name = request.headers.get("x-name", "nobody")


@app.after_request
def after(response: Response) -> Response:
    response.headers["x-after"] = g.name
    return response


@app.teardown_request
def teardown(error: BaseException | None) -> None:
    if request.path == "/teardown":
        record("teardown")


@app.get("/")
def hello() -> dict[str, Any]:
    return {"hello": request.args.get("name", "world"), "g": g.name}


@app.get("/teardown")
def tear() -> str:
    return "torn"


@app.route("/echo", methods=["POST", "PUT", "PATCH", "DELETE"])
def echo() -> Response:
    return Response(request.get_data(), mimetype=request.mimetype)


@app.post("/json")
def json_echo() -> Response:
    return jsonify(request.get_json())


@app.post("/digest")
def digest() -> dict[str, Any]:
    """Reads the body bit by bit, as it comes."""
    total, sha = 0, hashlib.sha256()
    while part := request.stream.read(10_000):
        total += len(part)
        sha.update(part)
    return {"size": total, "sha256": sha.hexdigest()}


@app.post("/upload")
def upload() -> dict[str, Any]:
    found: dict[str, Any] = dict(request.form)
    for name, file in request.files.items():
        data = file.read()
        found[name] = {
            "filename": file.filename,
            "type": file.mimetype,
            "sha256": hashlib.sha256(data).hexdigest(),
        }
    return found


@app.get("/stream")
def stream() -> Response:
    def parts() -> Iterator[str]:
        for number in range(50):
            yield f"line {number} for {g.name}\n"

    return Response(stream_with_context(parts()), mimetype="text/plain")


@app.get("/stream/closes")
def stream_closes() -> Response:
    """Closed by the server, when the client goes or at the end."""

    def parts() -> Iterator[bytes]:
        record("stream began")
        try:
            for _ in range(300):
                yield b"x" * 100_000
        finally:
            record("stream closed")

    return Response(parts())


@app.get("/stream/raises")
def stream_raises() -> Response:
    def parts() -> Iterator[bytes]:
        yield b"first"
        raise ExpectedError("stream")

    return Response(parts())


@app.get("/session")
def count() -> dict[str, Any]:
    session["count"] = session.get("count", 0) + 1
    return dict(session)


@app.get("/flash")
def flashes() -> str:
    flash("a message")
    return str(get_flashed_messages())


@app.get("/template")
def template() -> str:
    return render_template_string("<p>{{ text }}</p>", text=request.args["text"])


@app.get("/file")
def file() -> Response:
    return send_file(LARGE, as_attachment=True, download_name="große datei.bin", conditional=True)


@app.get("/redirect")
def redirects() -> Any:
    return redirect(url_for("hello", name="redirected", _external=True))


@app.get("/cookies")
def cookies() -> Response:
    response = jsonify(dict(request.cookies))
    response.set_cookie("one", "1", httponly=True)
    response.set_cookie("two", "2")
    return response


@app.get("/raises")
def raises() -> str:
    raise ExpectedError("view")


@app.get("/abort/<int:status>")
def aborts(status: int) -> str:
    abort(status)


@app.errorhandler(404)
def not_found(error: Exception) -> tuple[str, int]:
    return "nothing here", 404


@app.get("/empty")
def empty() -> tuple[str, int]:
    return "", 204


@app.get("/tuple")
def three() -> tuple[str, int, dict[str, str]]:
    @after_this_request
    def more(response: Response) -> Response:
        response.headers["x-more"] = "yes"
        return response

    return "made", 201, {"x-header": "value"}


@app.get("/async")
async def async_view() -> str:
    return "async"


@app.get("/environ")
def environ() -> dict[str, Any]:
    kept = {key: value for key, value in request.environ.items() if isinstance(value, (str, bool))}
    kept["thread"] = threading.current_thread().name
    return kept


@app.get("/url/<path:rest>")
def url(rest: str) -> dict[str, Any]:
    return {"rest": rest, "url": request.url, "host": request.host, "remote": request.remote_addr}
