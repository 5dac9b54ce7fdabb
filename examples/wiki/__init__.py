"""The wiki search: every title of a MediaWiki dump in one trie, every page sent by its byte range.

`python -m examples.wiki.make_dump` writes a synthetic dump, `python -m examples.wiki.build` makes
the index of a dump, and `wiki.py` serves both. README.md, beside this file, shows the way.
"""
