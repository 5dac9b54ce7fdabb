"""What both forms of the TEFB application show: clamped numbers, and the page of fortunes."""

import re
from html import escape

QUERIES_MAX = 500
EXTRA = (0, "Additional fortune added at request time.")

_INTEGER = re.compile(r" *[+-]?[0-9]{1,4000} *")  # int() takes 4300 digits, and 1_0
_PAGE = (
    "<!DOCTYPE html><html><head><title>Fortunes</title></head><body><table>"
    "<tr><th>id</th><th>message</th></tr>{}</table></body></html>"
)
_ROW = "<tr><td>{}</td><td>{}</td></tr>"


def clamped(queries):
    """How many queries a request asks for: what is no number is 1, and 1 to 500 it is."""
    if queries is None or not _INTEGER.fullmatch(queries):
        return 1
    return min(max(int(queries), 1), QUERIES_MAX)


def with_extra(rows):
    """The fortunes of the table and one more, sorted by message."""
    return sorted([EXTRA, *rows], key=lambda row: row[1])


def page_of(rows):
    """Fortunes as HTML; what they say is text, whatever it looks like."""
    return _PAGE.format("".join(_ROW.format(number, escape(text)) for number, text in rows))
