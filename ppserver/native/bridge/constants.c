/* Per-context constants: every Core owns its own objects.
 *
 * Interned text serves as dict keys, where identity makes look-ups quick; it is immortal on
 * free-threaded builds. Header names are bytes objects that belong to this context alone, so that
 * two contexts in one process never write to the same reference count. */
#include "bridge/constants.h"

static const char *const method_texts[PP_METHOD_COUNT] = {
    [PP_METHOD_GET] = "GET",     [PP_METHOD_HEAD] = "HEAD",       [PP_METHOD_POST] = "POST",
    [PP_METHOD_PUT] = "PUT",     [PP_METHOD_DELETE] = "DELETE",   [PP_METHOD_OPTIONS] = "OPTIONS",
    [PP_METHOD_PATCH] = "PATCH", [PP_METHOD_CONNECT] = "CONNECT", [PP_METHOD_TRACE] = "TRACE",
};

int pp_constants_init(struct pp_constants *k)
{
#define PP_MAKE_(field, text) \
    if ((k->field = PyUnicode_InternFromString(text)) == NULL) { \
        return -1; \
    }
    PP_TEXT_CONSTANTS(PP_MAKE_)
#undef PP_MAKE_
    for (int i = PP_METHOD_OTHER + 1; i < PP_METHOD_COUNT; i++) {
        if ((k->methods[i] = PyUnicode_InternFromString(method_texts[i])) == NULL) {
            return -1;
        }
    }
    for (uint16_t i = PP_H1_NAME_OTHER + 1; i < PP_H1_NAME_COUNT; i++) {
        k->names[i] = PyBytes_FromStringAndSize(pp_h1_name_text(i), (Py_ssize_t)pp_h1_name_len(i));
        if (k->names[i] == NULL) {
            return -1;
        }
    }
    if ((k->empty_bytes = PyBytes_FromStringAndSize(NULL, 0)) == NULL) {
        return -1;
    }
    if ((k->empty_str = PyUnicode_FromStringAndSize(NULL, 0)) == NULL) {
        return -1;
    }
    if ((k->eager_names = PyTuple_Pack(2, k->loop, k->eager_start)) == NULL) {
        return -1;
    }
    return 0;
}

void pp_constants_fini(struct pp_constants *k)
{
#define PP_DROP_(field, text) Py_CLEAR(k->field);
    PP_TEXT_CONSTANTS(PP_DROP_)
#undef PP_DROP_
    for (int i = 0; i < PP_METHOD_COUNT; i++) {
        Py_CLEAR(k->methods[i]);
    }
    for (int i = 0; i < PP_H1_NAME_COUNT; i++) {
        Py_CLEAR(k->names[i]);
    }
    Py_CLEAR(k->empty_bytes);
    Py_CLEAR(k->empty_str);
    Py_CLEAR(k->eager_names);
}
