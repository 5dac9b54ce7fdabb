/* Reading a send() message: one pass over its items instead of a look-up for every field.
 *
 * The keys that applications write are literals, which CPython interns, so they are the very
 * objects of our constants. If all keys of a message are, then one pass tells what is in it and
 * what is not; any other key, be it an equal one, leaves the fields to be looked up one by one. */
#include "bridge/message.h"

static PyObject *key_of(const struct pp_constants *k, enum pp_message_field field)
{
    switch (field) {
    case PP_MESSAGE_TYPE:
        return k->type;
    case PP_MESSAGE_BODY:
        return k->body;
    case PP_MESSAGE_MORE_BODY:
        return k->more_body;
    case PP_MESSAGE_STATUS:
        return k->status;
    case PP_MESSAGE_HEADERS:
        return k->headers;
    case PP_MESSAGE_TRAILERS:
        return k->trailers;
    case PP_MESSAGE_FIELD_COUNT:
        break;
    }
    PP_CHECK(false);
    return NULL;
}

static inline enum pp_message_field field_of(const struct pp_constants *k, const PyObject *key)
{
    return key == k->type        ? PP_MESSAGE_TYPE
           : key == k->body      ? PP_MESSAGE_BODY
           : key == k->more_body ? PP_MESSAGE_MORE_BODY
           : key == k->status    ? PP_MESSAGE_STATUS
           : key == k->headers   ? PP_MESSAGE_HEADERS
           : key == k->trailers  ? PP_MESSAGE_TRAILERS
                                 : PP_MESSAGE_FIELD_COUNT;
}

void pp_message_init(struct pp_message *m, const struct pp_constants *k, PyObject *dict)
{
    *m = (struct pp_message){.dict = dict};
    Py_BEGIN_CRITICAL_SECTION(dict);
    PyObject *key, *value;
    Py_ssize_t pos = 0, left = PyDict_GET_SIZE(dict);
    while (left > 0 && PyDict_Next(dict, &pos, &key, &value)) {
        enum pp_message_field field = field_of(k, key);
        if (field == PP_MESSAGE_FIELD_COUNT) {
            break;
        }
        m->fields[field] = Py_NewRef(value); /* a key is in a dict once */
        left--;
    }
    m->read = left == 0;
    Py_END_CRITICAL_SECTION();
}

void pp_message_fini(struct pp_message *m)
{
    for (int i = 0; i < PP_MESSAGE_FIELD_COUNT; i++) {
        Py_XDECREF(m->fields[i]);
    }
}

int pp_message_take(struct pp_message *m, const struct pp_constants *k, enum pp_message_field field,
                    PyObject **value)
{
    if (PP_LIKELY(m->read)) {
        *value = m->fields[field];
        m->fields[field] = NULL;
        return *value != NULL;
    }
    return PyDict_GetItemRef(m->dict, key_of(k, field), value);
}
