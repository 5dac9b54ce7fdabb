"""Files: where a path leads below a root, what kind of file it is, and the answer that sends it.

A file's bytes never pass through Python when there is a transport: only its status is read here.
"""

from __future__ import annotations

import errno
import mimetypes
import os
import posixpath
import stat
from urllib.parse import quote, unquote_to_bytes

from parallel.http.messages import FilePart, Request, html_response, quote_html
from parallel.http.ranges import InvalidRangeRequest, precondition, range_still_holds

_TYPES = mimetypes.MimeTypes()  # the tables of the library, whatever the machine has beside them
_PACKED = {".gz": "application/gzip", ".bz2": "application/x-bzip2", ".xz": "application/x-xz"}
_NOT_THERE = frozenset(
    (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EACCES)
)


def is_missing(error: OSError) -> bool:
    """Whether it means that there is no such file for a client; else the trouble is ours."""
    return error.errno in _NOT_THERE


def guess_type(path: str) -> str:
    """The media type by the ending of a name, with ``charset=utf-8`` for text.

    A packed file is what it is packed as; what is not known is ``application/octet-stream``.
    """
    ending = posixpath.splitext(path)[1].lower()
    if ending in _PACKED:
        return _PACKED[ending]
    media = _TYPES.types_map[True].get(ending, "application/octet-stream")
    return f"{media}; charset=utf-8" if media.startswith("text/") else media


def is_hidden(name: str) -> bool:
    """Whether a file is nobody else's business: ``.git``, ``.env`` and the like. What is meant for
    others and begins with a dot is in ``.well-known`` (RFC 8615)."""
    return name.startswith(".") and name != ".well-known"


def is_below(path: str, root: str) -> bool:
    """Whether a real path is a real root or in it: by components, not by characters."""
    return os.path.commonpath((path, root)) == root


def translate_path(path: str, root: str | os.PathLike[str] | None = None) -> str:
    """The absolute path in the file system for the path of a URL, below the root.

    ``path`` is as sent, escaped; a query behind it is left out. ``root`` is the current directory
    by default. All symbolic links are followed first. Raises ValueError for what is not UTF-8, for
    NUL, escaped slashes, empty and dotted segments, and for what leads out of the root.
    """
    path = path.partition("?")[0].partition("#")[0]
    if not path.startswith("/"):
        raise ValueError("a path begins with a slash")
    real_root = os.path.realpath(os.getcwd() if root is None else root)
    segments = path.split("/")[1:]
    if segments[-1] == "":
        segments.pop()
    names = [unquote_to_bytes(segment).decode("utf-8") for segment in segments]
    for name in names:
        if name in ("", ".", "..") or "/" in name or "\0" in name:
            raise ValueError("a path with a segment that names no file")
        if is_hidden(name):
            raise ValueError("a path to what is hidden")
    real = os.path.realpath(os.path.join(real_root, *names))
    if not is_below(real, real_root):
        raise ValueError("a path that leads out of the root")
    return real


def send_file(request: Request, path: str) -> int:
    """Fill in the response that sends a regular file, or the part that is asked for.

    Gives the status that is left to be answered instead: 400 for a broken ``?range=``, 404 for
    what is no regular file, 412 or 416; or 0 if the response is complete (200, 206, 304). Raises
    OSError, see `is_missing`, and ValueError for a path with a NUL.

    RFC 9110 section 13.2.2 is the order: conditions, then the range.
    """
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        return 404
    response = request.response
    size, modified = status.st_size, int(status.st_mtime)
    etag = f'"{status.st_ino:x}-{status.st_mtime_ns:x}-{size:x}"'
    if request.command in ("GET", "HEAD"):
        verdict = precondition(request.headers, etag, modified)
        if verdict == 412:
            return verdict
        response.etag, response.last_modified = etag, modified
        if verdict == 304:
            response.code, response.body = verdict, b""
            return 0
    if request.range_is_broken:
        return 400
    wanted = request.range
    if request.range_is_of_header and not range_still_holds(request.headers, etag, modified):
        wanted = None
    response.other_headers = [*response.others(), ("Accept-Ranges", "bytes")]
    first, count = 0, size
    if wanted is not None:
        try:
            first, last = wanted.resolve(size)
        except InvalidRangeRequest:
            response.content_range = f"bytes */{size}"
            return 416
        count = last + 1 - first
        response.code, response.content_range = 206, f"bytes {first}-{last}/{size}"
    if response.content_type is None:
        response.content_type = guess_type(path)
    response.body = b""
    response.file = FilePart(path, first, count)
    return 0


def list_directory(request: Request, path: str) -> Request:
    """Answer with a page that lists a directory, sorted by name. Raises OSError."""
    with os.scandir(path) as found:
        entries = sorted((entry.name, entry.is_dir()) for entry in found)
    title = f"Directory listing for {quote_html(request.path)}"
    lines = [
        f'<!DOCTYPE html>\n<html><head><meta charset="utf-8"><title>{title}</title></head>\n'
        f"<body><h1>{title}</h1>\n<ul>"
    ]
    for name, is_directory in entries:
        if is_hidden(name):
            continue
        try:
            name.encode("utf-8")
        except UnicodeEncodeError:
            continue  # no URL of UTF-8 leads to it
        slash = "/" if is_directory else ""
        lines.append(f'<li><a href="./{quote(name)}{slash}">{quote_html(name)}{slash}</a></li>')
    lines.append("</ul></body></html>\n")
    return html_response(request, "\n".join(lines))


def with_slash(request: Request) -> str:
    """Where a directory that was asked for without a slash is: a path, never another host."""
    query = request.raw_path.partition("?")[2]
    location = quote(request.path) + "/"
    return f"{location}?{query}" if query else location
