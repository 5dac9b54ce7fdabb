/* Has anybody left a trace on the worker Task, or kept a way to it?
 *
 * One client must never reach another, so a Task serves a second request only if no application can
 * tell it from a new one: what its methods and attributes give is what they gave when it was made,
 * and the number of references to it, to its coroutine, its context and its parking future is the
 * same, so that nobody can change it later. A Task of a class other than asyncio's own may keep
 * anything anywhere and is never used twice.
 *
 * The answer comes in two speeds: the reference counts are looked at every time; what the objects
 * have to say is asked by their methods once, and taken for said as long as their memory does not
 * change (imprint.c). */
#include "bridge/pristine.h"
#include "bridge/flag.h"
#include "bridge/imprint.h"
#include "bridge/runner.h"

static Py_ssize_t weakref_count(PpCore *core, PyObject *object)
{
    PyObject *number = PyObject_CallOneArg(core->state->get_weakref_count, object);
    if (number == NULL) {
        return -1;
    }
    Py_ssize_t count = PyLong_AsSsize_t(number);
    Py_DECREF(number);
    return count;
}

int pp_pristine_remember(PpCore *core)
{
    struct pp_untouched *was = &core->worker_untouched;
    pp_imprint_forget(&core->worker_imprint);
    was->weakrefs = weakref_count(core, core->worker);
    PyObject *name = PyObject_VectorcallMethod(core->k.get_name, &core->worker, 1, NULL);
    if (was->weakrefs < 0 || name == NULL) {
        Py_XDECREF(name);
        return -1;
    }
    Py_XSETREF(core->worker_name, name);
    was->task = Py_REFCNT(core->worker);
    was->runner = Py_REFCNT(core->runner);
    was->context = Py_REFCNT(core->worker_context);
    return 0;
}

/* While a Task is the current one, the loop holds it, too, and so does, from 3.14 on, the future it
 * waits on (who awaits it). A parking future is held by the Task and by its coroutine. */
static bool nobody_holds_it(PpCore *core)
{
    const struct pp_untouched *was = &core->worker_untouched;
    PyObject *parking = ((PpRunner *)core->runner)->parking;
    int waiting = PY_VERSION_HEX >= 0x030E0000 && parking != NULL;
    return Py_REFCNT(core->worker) == was->task + core->entered + waiting &&
           Py_REFCNT(core->runner) == was->runner &&
           Py_REFCNT(core->worker_context) == was->context &&
           (parking == NULL || Py_REFCNT(parking) == 2);
}

/* 1 if the attribute, or what the method without arguments gives, is this very object; 0 if not; -1
 * with an exception. */
static int attr_is(PyObject *object, PyObject *attr, PyObject *wanted)
{
    PyObject *value = PyObject_GetAttr(object, attr);
    Py_XDECREF(value); /* only compared */
    return value == NULL ? -1 : value == wanted;
}

static int method_gives(PyObject *object, PyObject *method, PyObject *wanted)
{
    PyObject *value = PyObject_VectorcallMethod(method, &object, 1, NULL);
    Py_XDECREF(value);
    return value == NULL ? -1 : value == wanted;
}

/* What a Task and a future have in common. `waiting` callbacks are the loop's own. */
static int future_untouched(PpCore *core, PyObject *future, Py_ssize_t weakrefs, int waiting)
{
    const struct pp_constants *k = &core->k;
    Py_ssize_t count = weakref_count(core, future);
    if (count != weakrefs || pp_imprint_has_dict(future)) {
        return count < 0 ? -1 : 0;
    }
    int ok = method_gives(future, k->done, Py_False);
    ok = ok > 0 ? attr_is(future, k->cancel_message, Py_None) : ok;
    ok = ok > 0 ? attr_is(future, k->future_blocking, Py_False) : ok;
    if (ok <= 0) {
        return ok;
    }
    PyObject *callbacks = PyObject_GetAttr(future, k->callbacks);
    if (callbacks == NULL) {
        return -1;
    }
    ok = PyList_CheckExact(callbacks) ? PyList_GET_SIZE(callbacks) == waiting
                                      : callbacks == Py_None && waiting == 0;
    Py_DECREF(callbacks);
    return ok;
}

static int task_untouched(PpCore *core)
{
    const struct pp_constants *k = &core->k;
    PyObject *task = core->worker, *parking = ((PpRunner *)core->runner)->parking;
    int ok = future_untouched(core, task, core->worker_untouched.weakrefs, 0);
    ok = ok > 0 ? pp_flag_call(task, k->cancelling) == 0 : ok;
    ok = ok > 0 ? attr_is(task, k->must_cancel, Py_False) : ok;
    ok = ok > 0 ? attr_is(task, k->log_destroy_pending, Py_True) : ok;
    ok = ok > 0 ? attr_is(task, k->fut_waiter, parking != NULL ? parking : Py_None) : ok;
    ok = ok > 0 ? method_gives(task, k->get_coro, core->runner) : ok;
    ok = ok > 0 ? method_gives(task, k->get_name, core->worker_name) : ok;
#if PY_VERSION_HEX >= 0x030C0000
    ok = ok > 0 ? method_gives(task, k->get_context, core->worker_context) : ok;
#endif
#if PY_VERSION_HEX >= 0x030E0000
    ok = ok > 0 ? attr_is(task, k->awaited_by, Py_None) : ok;
#endif
    return ok;
}

/* By the objects' own methods. */
static int look_over(PpCore *core)
{
    PyObject *parking = ((PpRunner *)core->runner)->parking;
    if ((PyObject *)Py_TYPE(core->worker) != core->state->task_class ||
        (parking != NULL && (PyObject *)Py_TYPE(parking) != core->state->future_class)) {
        return 0;
    }
    int ok = task_untouched(core);
    return ok > 0 && parking != NULL ? future_untouched(core, parking, 0, 1) : ok;
}

/* Whether two contexts of the same size have the very same values: equal ones are not enough, they
 * may be lists. */
static int same_values(PyObject *context, PyObject *base)
{
    PyObject *vars = PyObject_GetIter(base), *var;
    int same = vars != NULL ? 1 : -1;
    while (same > 0 && (var = PyIter_Next(vars)) != NULL) {
        PyObject *one = PyObject_GetItem(context, var), *other = PyObject_GetItem(base, var);
        same = one != NULL && one == other;
        Py_XDECREF(one);
        Py_XDECREF(other);
        Py_DECREF(var);
    }
    Py_XDECREF(vars);
    return PyErr_Occurred() ? -1 : same;
}

static int context_untouched(PpCore *core)
{
    PyObject *context = core->worker_context, *base = core->worker_base;
    Py_ssize_t weakrefs = weakref_count(core, context);
    Py_ssize_t size = PyObject_Size(context), base_size = PyObject_Size(base);
    if (weakrefs != 0 || size < 0 || size != base_size) {
        return PyErr_Occurred() ? -1 : 0;
    }
    return size == 0 ? 1 : same_values(context, base);
}

bool pp_pristine_at_end(PpCore *core)
{
    if (PP_LIKELY(nobody_holds_it(core) &&
                  pp_imprint_matches_task(&core->worker_imprint, core->worker) &&
                  pp_imprint_same_context(core->worker_context, core->worker_base))) {
        return true;
    }
    return pp_pristine(core);
}

bool pp_pristine(PpCore *core)
{
    PyObject *parking = ((PpRunner *)core->runner)->parking;
    if (PP_UNLIKELY(!nobody_holds_it(core))) {
        return false;
    }
    int ok = 1;
    if (PP_UNLIKELY(!pp_imprint_matches(&core->worker_imprint, core->worker, parking))) {
        ok = look_over(core);
        if (ok > 0) {
            pp_imprint_take(&core->worker_imprint, core->worker, parking);
        }
    }
    if (PP_UNLIKELY(ok > 0 && !pp_imprint_same_context(core->worker_context, core->worker_base))) {
        ok = context_untouched(core);
    }
    if (PP_UNLIKELY(ok < 0)) {
        PyErr_Clear();
    }
    return ok > 0;
}
