/* A context's Python constants. */
#ifndef PP_BRIDGE_CONSTANTS_H
#define PP_BRIDGE_CONSTANTS_H

#include "bridge/compat.h"

#include "proto/h1_parse.h"

/* Constants of one context: its own objects, so that contexts never share a reference count.
 * Interned text keys are X(field, "text"). */
#define PP_TEXT_CONSTANTS(X) \
    X(type, "type") \
    X(asgi, "asgi") \
    X(http, "http") \
    X(http_version, "http_version") \
    X(server, "server") \
    X(client, "client") \
    X(scheme, "scheme") \
    X(https, "https") \
    X(method, "method") \
    X(root_path, "root_path") \
    X(path, "path") \
    X(raw_path, "raw_path") \
    X(query_string, "query_string") \
    X(headers, "headers") \
    X(state, "state") \
    X(version, "version") \
    X(spec_version, "spec_version") \
    X(v3_0, "3.0") \
    X(v2_3, "2.3") \
    X(v1_0, "1.0") \
    X(v1_1, "1.1") \
    X(body, "body") \
    X(more_body, "more_body") \
    X(status, "status") \
    X(trailers, "trailers") \
    X(http_request, "http.request") \
    X(http_disconnect, "http.disconnect") \
    X(create_future, "create_future") \
    X(set_result, "set_result") \
    X(done, "done") \
    X(append, "append") \
    X(stopping, "_stopping") \
    X(debug, "_debug") \
    X(scheduled, "_scheduled") \
    X(args, "args") \
    X(cancel, "cancel") \
    X(exceptions, "exceptions") \
    X(msg, "msg") \
    X(create_task, "create_task") \
    X(get_name, "get_name") \
    X(cancelling, "cancelling") \
    X(callbacks, "_callbacks") \
    X(must_cancel, "_must_cancel") \
    X(cancel_message, "_cancel_message") \
    X(log_destroy_pending, "_log_destroy_pending") \
    X(fut_waiter, "_fut_waiter") \
    X(awaited_by, "_asyncio_awaited_by") \
    X(get_coro, "get_coro") \
    X(get_context, "get_context") \
    X(get_task_factory, "get_task_factory") \
    X(future_blocking, "_asyncio_future_blocking") \
    X(call_soon, "call_soon") \
    X(call_later, "call_later") \
    X(context, "context") \
    X(loop, "loop") \
    X(eager_start, "eager_start") \
    X(close, "close") \
    X(throw_, "throw")

struct pp_constants {
#define PP_FIELD_(field, text) PyObject *field;
    PP_TEXT_CONSTANTS(PP_FIELD_)
#undef PP_FIELD_
    PyObject *methods[PP_METHOD_COUNT]; /* str; [PP_METHOD_OTHER] is NULL */
    PyObject *names[PP_H1_NAME_COUNT];  /* bytes, lower-case; [PP_H1_NAME_OTHER] is NULL */
    PyObject *empty_bytes, *empty_str;
    PyObject *eager_names; /* the keywords that an eager Task is made with */
};
int pp_constants_init(struct pp_constants *k); /* -1 with an exception; fini is then still right */
void pp_constants_fini(struct pp_constants *k);

#endif
