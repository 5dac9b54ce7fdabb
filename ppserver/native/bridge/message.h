/* The fields of a send() message (contract for asgi_send.c alone). */
#ifndef PP_BRIDGE_MESSAGE_H
#define PP_BRIDGE_MESSAGE_H

#include "bridge/constants.h"

enum pp_message_field {
    PP_MESSAGE_TYPE,
    PP_MESSAGE_BODY,
    PP_MESSAGE_MORE_BODY,
    PP_MESSAGE_STATUS,
    PP_MESSAGE_HEADERS,
    PP_MESSAGE_TRAILERS,
    PP_MESSAGE_FIELD_COUNT
};

struct pp_message {
    PyObject *dict;                           /* borrowed: the caller keeps it */
    PyObject *fields[PP_MESSAGE_FIELD_COUNT]; /* owned or NULL; of use only if read */
    bool read;                                /* every item of the dict is in fields */
};

/* Reads what it can of a dict at once; runs no code of the application. */
void pp_message_init(struct pp_message *m, const struct pp_constants *k, PyObject *dict);
void pp_message_fini(struct pp_message *m);
/* Moves a field out, which may be asked for once: 1 and a reference, 0 and NULL when it is missing,
 * -1 with an exception. */
int pp_message_take(struct pp_message *m, const struct pp_constants *k, enum pp_message_field field,
                    PyObject **value);

#endif
