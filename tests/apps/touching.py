"""An application that does to its Task what applications do, in any order.

``GET /do/a,b,c`` carries out deeds of `DEEDS` and answers what the Task looked like before, as
JSON. ``GET /report`` tells what has become of everything that requests have kept, ``/forget`` drops
it. Answers name nothing that may differ from one server to another: Tasks are named by the number
of their request, and all names that nobody has given are one.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import json
import re
import sys
import weakref
from collections.abc import Awaitable, Callable
from typing import Any

Deed = Callable[[Any, str], Any]
DEEDS: dict[str, Deed] = {}
HAS_CONTEXT = sys.version_info >= (3, 12)

word: contextvars.ContextVar[str] = contextvars.ContextVar("word", default="")
box: contextvars.ContextVar[list[str]] = contextvars.ContextVar("box")


class State:
    def __init__(self) -> None:
        self.requests = 0
        self.ended = asyncio.Event()  # of the request that runs
        self.events: list[str] = []
        self.tasks: dict[str, Any] = {}  # by the request that kept it
        self.coros: dict[str, Any] = {}
        self.contexts: dict[str, contextvars.Context] = {}
        self.weak: dict[str, Any] = {}
        self.marks: weakref.WeakKeyDictionary[Any, str] = weakref.WeakKeyDictionary()
        self.tokens: dict[str, contextvars.Token[str]] = {}
        self.boxes: dict[str, list[str]] = {}
        self.children: list[asyncio.Task[Any]] = []


now = State()


def deed(function: Deed) -> Deed:
    DEEDS[function.__name__] = function
    return function


def happened(what: str) -> Callable[..., None]:
    return lambda *_: now.events.append(what)


# ---- deeds: the Task and the number of the request ----


@deed
def attribute(task: Any, me: str) -> None:
    task.user = me


@deed
def attribute_and_back(task: Any, me: str) -> None:
    task.user = me
    del task.user


@deed
def name(task: Any, me: str) -> None:
    task.set_name(f"named by {me}")


@deed
def name_and_back(task: Any, me: str) -> None:
    before = task.get_name()
    task.set_name(me)
    task.set_name(before)


@deed
def keep_task(task: Any, me: str) -> None:
    now.tasks[me] = task


@deed
def keep_coro(task: Any, me: str) -> None:
    now.coros[me] = task.get_coro()


@deed
def keep_context(task: Any, me: str) -> None:
    if HAS_CONTEXT:
        now.contexts[me] = task.get_context()


@deed
def keep_weakly(task: Any, me: str) -> None:
    now.weak[me] = weakref.ref(task)


@deed
def keep_weakly_with_callback(task: Any, me: str) -> None:
    now.weak[me] = weakref.ref(task, happened(f"{me} died"))


@deed
def key_of_a_weak_dict(task: Any, me: str) -> None:
    now.marks[task] = me


@deed
def finalize(task: Any, me: str) -> None:
    weakref.finalize(task, happened(f"{me} finalized")).atexit = False


@deed
def done_callback(task: Any, me: str) -> None:
    task.add_done_callback(happened(f"{me} done"))


@deed
def done_callback_in_a_context(task: Any, me: str) -> None:
    callback = lambda _: happened(f"{me} done in {word.get()}")()  # noqa: E731
    task.add_done_callback(callback, context=contextvars.copy_context())


@deed
def done_callback_and_back(task: Any, me: str) -> None:
    callback = happened(f"{me} must not happen")
    task.add_done_callback(callback)
    task.remove_done_callback(callback)


@deed
def variable(task: Any, me: str) -> None:
    word.set(me)


@deed
def variable_and_back(task: Any, me: str) -> None:
    token = word.set(me)
    word.reset(token)


@deed
def variable_of_its_own(task: Any, me: str) -> None:
    now.boxes[me] = []
    box.set(now.boxes[me])


@deed
def keep_token(task: Any, me: str) -> None:
    now.tokens.setdefault(me, word.set(me))


@deed
def keep_token_and_back(task: Any, me: str) -> None:
    token = word.set("between")
    now.tokens.setdefault(me, word.set(me))
    word.reset(token)


@deed
def reset_tokens_of_others(task: Any, me: str) -> None:
    for whose, token in list(now.tokens.items()):
        if whose != me:
            with contextlib.suppress(ValueError, RuntimeError):
                word.reset(token)
                happened(f"{me} used a token of {whose}")()


@deed
def change_kept_contexts(task: Any, me: str) -> None:
    for whose, context in now.contexts.items():
        if whose != me:
            context.run(word.set, f"{me} for {whose}")


@deed
def fill_kept_boxes(task: Any, me: str) -> None:
    for whose, kept in now.boxes.items():
        if whose != me:
            kept.append(me)


@deed
def mark_kept_tasks(task: Any, me: str) -> None:
    for whose, kept in now.tasks.items():
        if whose != me:
            kept.user = me
            kept.cancel(me)


@deed
def callback_in_its_context(task: Any, me: str) -> None:
    context = task.get_context() if HAS_CONTEXT else contextvars.copy_context()
    asyncio.get_running_loop().call_soon(word.set, f"later {me}", context=context)


@deed
def child_in_its_context(task: Any, me: str) -> None:
    """Goes on when the request has ended."""

    async def child(ended: asyncio.Event) -> None:
        await ended.wait()
        word.set(f"child of {me}")
        await asyncio.sleep(0)
        happened(f"child of {me} has {word.get()}")()

    if HAS_CONTEXT:
        loop: Any = asyncio.get_running_loop()
        now.children.append(loop.create_task(child(now.ended), context=task.get_context()))


@deed
def child_that_cancels(task: Any, me: str) -> None:
    """When the request has ended."""

    async def child(ended: asyncio.Event) -> None:
        await ended.wait()
        for _ in range(12):
            await asyncio.sleep(0)
        happened(f"child cancels {me}: {task.cancel(me)}")()

    now.children.append(asyncio.create_task(child(now.ended)))


@deed
def cancel(task: Any, me: str) -> None:
    task.cancel(f"cancelled by {me}")


@deed
def cancel_and_back(task: Any, me: str) -> None:
    task.cancel(me)
    task.uncancel()


@deed
def uncancel(task: Any, me: str) -> None:
    task.uncancel()


@deed
def marks_of_asyncio(task: Any, me: str) -> None:
    task._log_destroy_pending = False
    if not task.cancelling():
        task._cancel_message = me


@deed
def what_it_waits_for(task: Any, me: str) -> None:
    """Nothing, when it has just been made."""
    waiter = task._fut_waiter
    if waiter is not None:
        waiter.user = me


@deed
def dump(task: Any, me: str) -> None:
    repr(task)
    task.get_stack()
    hash(task)


@deed
async def timeout(task: Any, me: str) -> None:
    async with asyncio.timeout(600):
        pass


@deed
async def timeout_that_expires(task: Any, me: str) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0):
            await asyncio.Event().wait()


@deed
async def group(task: Any, me: str) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(asyncio.sleep(0))


@deed
async def suspend(task: Any, me: str) -> None:
    await asyncio.sleep(0)


@deed
async def suspend_longer(task: Any, me: str) -> None:
    await asyncio.sleep(0.0001)


# ---- what can be seen ----


def name_of(task: Any) -> str:
    return re.sub(r"^Task-\d+$", "", task.get_name())


def look(task: Any) -> dict[str, Any]:
    """What the Task of a request looks like."""
    return {
        "user": getattr(task, "user", None),
        "name": name_of(task),
        "cancelling": task.cancelling(),
        "must cancel": task._must_cancel,
        "cancel message": task._cancel_message,
        "log destroy pending": task._log_destroy_pending,
        "blocking": task._asyncio_future_blocking,
        "callbacks": len(task._callbacks or ()),
        "done": task.done(),
        "mark of what it waits for": getattr(task._fut_waiter, "user", None),
        "mark": now.marks.get(task),
        "kept by": sorted(n for n, kept in now.tasks.items() if kept is task),
        "coroutine kept by": sorted(n for n, kept in now.coros.items() if kept is task.get_coro()),
        "weakly kept by": sorted(n for n, kept in now.weak.items() if kept() is task),
        "context kept by": sorted(
            n for n, kept in now.contexts.items() if kept is task.get_context()
        ),
        "word": word.get(),
        "box": box.get(None),
        "token": [n for n in now.tokens if usable(now.tokens[n])],
    }


def usable(token: contextvars.Token[str]) -> bool:
    """Whether it was made in the current context, without using it."""
    copied = contextvars.copy_context()
    try:
        copied.run(word.reset, token)
    except (ValueError, RuntimeError):
        return False
    return True


async def report() -> dict[str, Any]:
    for _ in range(12):
        await asyncio.sleep(0)
    await asyncio.gather(*now.children, return_exceptions=True)
    gc.collect()
    await asyncio.sleep(0)
    return {
        "events": sorted(now.events),
        "tasks": {
            n: [t.done(), t.cancelled(), name_of(t), getattr(t, "user", None), t.cancelling()]
            for n, t in now.tasks.items()
        },
        "contexts": {n: [c.get(word), c.get(box)] for n, c in now.contexts.items()},
        "alive": sorted(n for n, kept in now.weak.items() if kept() is not None),
        "marked": len(now.marks),
    }


async def do(deeds: list[str]) -> dict[str, Any]:
    task = asyncio.current_task()
    now.requests += 1
    me = str(now.requests)
    ended = now.ended = asyncio.Event()
    before = look(task)
    for each in deeds:
        try:
            outcome = DEEDS[each](task, me)
            if isinstance(outcome, Awaitable):
                await outcome
        except asyncio.CancelledError as error:
            happened(f"{me} was cancelled in {each}: {error.args}")()
    ended.set()
    return before


async def answer(path: str) -> Any:
    kind, _, rest = path.strip("/").partition("/")
    if kind == "do":
        return await do([each for each in rest.split(",") if each])
    if kind == "report":
        return await report()
    now.__init__()  # type: ignore[misc]
    return {}


async def app(scope: dict[str, Any], receive: Callable[..., Any], send: Callable[..., Any]) -> None:
    if scope["type"] == "lifespan":
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    body = json.dumps(await answer(scope["path"]), sort_keys=True).encode()
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
