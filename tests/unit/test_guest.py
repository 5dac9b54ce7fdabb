"""What a guest makes of a module that refuses subinterpreters."""

from __future__ import annotations

import ast
import json
import sysconfig

from ppserver.errors import LoadError
from ppserver.supervision.places.guest import refusal
from ppserver.supervision.places.interpreters import program_of

REFUSED = "module numpy._core._multiarray_umath does not support loading in subinterpreters"
OTHER = "threads" if sysconfig.get_config_var("Py_GIL_DISABLED") else "processes"


def raised(error: BaseException, *, cause: BaseException | None = None) -> BaseException:
    try:
        raise error from cause
    except BaseException as caught:
        return caught


def test_the_module_is_named_without_a_traceback() -> None:
    error = raised(LoadError("importing m failed", trace="t\n"), cause=ImportError(REFUSED))
    found = refusal(error)
    assert found is not None
    assert str(found).startswith("module numpy._core._multiarray_umath does not support")
    assert found.hint == f"--contexts {OTHER} can load it"
    assert found.trace == ""


def test_it_is_found_behind_other_errors() -> None:
    behind = raised(ImportError("Importing the C-extensions failed"), cause=ImportError(REFUSED))
    try:
        try:
            raise behind
        except ImportError:
            raise RuntimeError("no plugin could be loaded")  # noqa: B904 (its context counts)
    except RuntimeError as error:
        context = error
    found = refusal(raised(LoadError("importing m failed"), cause=context))
    assert found is not None
    assert "numpy._core._multiarray_umath" in str(found)


def test_other_words_for_it_are_passed_on_with_the_traceback() -> None:
    text = "PyO3 modules do not yet support subinterpreters, see issue 576"
    found = refusal(raised(LoadError("importing m failed", trace="t\n"), cause=ImportError(text)))
    assert found is not None
    assert str(found) == text
    assert found.trace == "t\n"
    assert OTHER in found.hint


def test_a_name_that_is_said_beats_a_vague_text() -> None:
    vague = raised(ImportError("needs no subinterpreter"), cause=ImportError(REFUSED))
    found = refusal(vague)
    assert found is not None
    assert "numpy" in str(found)


def test_what_has_to_do_with_something_else_is_left_alone() -> None:
    assert refusal(ValueError(REFUSED)) is None  # No import has failed.
    assert refusal(ImportError("no module named subinterpretation")) is None


def test_a_circle_of_causes_ends() -> None:
    one, two = ImportError("one"), ImportError("two")
    one.__cause__, two.__cause__ = two, one
    assert refusal(one) is None


def test_a_program_holds_any_text() -> None:
    """Quotes, line ends, what is no ASCII and what is no Unicode reach the guest unharmed."""
    text = "'\"\\\n\N{SNOWMAN}\udcff\0"
    program = program_of({"text": text})
    assert program.isascii()
    assert "\0" not in program
    call = ast.parse(program).body[-1]
    assert isinstance(call, ast.Expr)
    assert isinstance(call.value, ast.Call)
    (argument,) = call.value.args
    assert json.loads(ast.literal_eval(argument)) == {"text": text}
