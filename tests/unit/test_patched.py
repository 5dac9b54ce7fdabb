"""What gevent and eventlet replace is refused, with what to do."""

from __future__ import annotations

import pathlib
import sys
import types

import pytest
import serving

from ppserver.app import patched
from ppserver.errors import LoadError


@pytest.mark.parametrize(
    ("library", "name", "question"),
    [
        ("gevent", "gevent.monkey", "is_module_patched"),
        ("eventlet", "eventlet.patcher", "is_monkey_patched"),
    ],
)
def test_what_is_patched_is_named(
    monkeypatch: pytest.MonkeyPatch, library: str, name: str, question: str
) -> None:
    module = types.ModuleType(name)
    monkeypatch.setitem(sys.modules, name, module)
    answers = {"os"}
    setattr(module, question, answers.__contains__)
    patched.refuse("shop:app")
    answers |= {"socket", "select"}
    with pytest.raises(
        LoadError, match=rf"shop:app patches .* {library} \(socket, select\)"
    ) as got:
        patched.refuse("shop:app")
    assert f"gunicorn -k {library}" in got.value.hint


@pytest.mark.slow
@pytest.mark.parametrize("contexts", [1, 2])
@pytest.mark.parametrize(
    ("library", "statement"),
    [
        ("gevent", "import gevent.monkey\ngevent.monkey.patch_all()"),
        ("eventlet", "import eventlet\neventlet.monkey_patch()"),
    ],
)
def test_the_start_ends(
    tmp_path: pathlib.Path, library: str, statement: str, contexts: int
) -> None:
    serving.optional(library)
    (tmp_path / "shop.py").write_text(
        f"{statement}\ndef app(environ, start_response):\n    raise NotImplementedError\n"
    )
    args = ["--app-dir", str(tmp_path)]
    server = serving.launch("shop:app", tmp_path, contexts=contexts, args=args)
    assert server.wait(60) == 3
    assert f"shop:app patches Python for {library}" in server.log
