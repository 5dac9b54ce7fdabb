/* The ASGI HTTP connection scope (ASGI 3, HTTP spec 2.4), built from the request head's spans.
 *
 * A request's scope is a copy of a per-context template with every key in place, so that filling it
 * never resizes the dict. What mostly stays, the path and the addresses, is set in the template.
 * Header fields that were seen lately come out of a small cache as finished (name, value) tuples;
 * what identifies a person (cookies, credentials) is never kept.
 */
#include "bridge/scope.h"

#include <string.h>

#include "base/text.h"
#include "net/address.h"

/* ---- templates ---- */

int pp_scope_setup(PpCore *core)
{
    struct pp_constants *k = &core->k;
    PyObject *asgi = PyDict_New(), *scope = PyDict_New();
    if (asgi == NULL || scope == NULL || PyDict_SetItem(asgi, k->version, k->v3_0) < 0 ||
        PyDict_SetItem(asgi, k->spec_version, k->v2_3) < 0) {
        goto fail;
    }
    if (PyDict_SetItem(scope, k->type, k->http) < 0 || PyDict_SetItem(scope, k->asgi, asgi) < 0 ||
        PyDict_SetItem(scope, k->http_version, k->v1_1) < 0 ||
        PyDict_SetItem(scope, k->server,
                       core->server_cache != NULL ? core->server_cache : Py_None) < 0 ||
        PyDict_SetItem(scope, k->client, Py_None) < 0 ||
        PyDict_SetItem(scope, k->scheme, k->http) < 0 ||
        PyDict_SetItem(scope, k->method, k->methods[PP_METHOD_GET]) < 0 ||
        PyDict_SetItem(scope, k->root_path, core->root_path) < 0 ||
        PyDict_SetItem(scope, k->path, k->empty_str) < 0 ||
        PyDict_SetItem(scope, k->raw_path, k->empty_bytes) < 0 ||
        PyDict_SetItem(scope, k->query_string, k->empty_bytes) < 0 ||
        PyDict_SetItem(scope, k->headers, Py_None) < 0) {
        goto fail;
    }
    if (core->lifespan_state != NULL && PyDict_SetItem(scope, k->state, Py_None) < 0) {
        goto fail;
    }
    Py_XSETREF(core->asgi_template, asgi);
    Py_XSETREF(core->scope_template, scope);
    Py_CLEAR(core->template_target);
    Py_CLEAR(core->template_client);
    return 0;
fail:
    Py_XDECREF(asgi);
    Py_XDECREF(scope);
    return -1;
}

/* ---- addresses ---- */

/* (host, port) of an IP address. */
static PyObject *address_tuple(const struct sockaddr *address)
{
    char text[PP_ADDRESS_TEXT_MAX];
    unsigned port;
    if (pp_address_text(address, text, &port) == 0) {
        Py_RETURN_NONE;
    }
    return Py_BuildValue("(sI)", text, port);
}

/* [path, None] of a Unix socket. */
static PyObject *path_tuple(struct pp_exchange *ex)
{
    char text[256];
    size_t len = pp_exchange_local_path(ex, text, sizeof(text));
    if (len == 0) {
        Py_RETURN_NONE;
    }
    PyObject *path = PyUnicode_DecodeFSDefaultAndSize(text, (Py_ssize_t)len);
    return path != NULL ? Py_BuildValue("(NO)", path, Py_None) : NULL;
}

/* What is kept with a connection is its peer's address, or, as a peer on a Unix socket has none,
 * that of the socket. */
static PyObject *keep(struct pp_exchange *ex, PyObject *made)
{
    if (made != NULL) {
        pp_exchange_set_user(ex, made); /* dropped by pp_core_release or close */
    }
    return Py_XNewRef(made);
}

PyObject *pp_scope_client(PpCore *core, struct pp_exchange *ex)
{
    (void)core;
    if (PP_UNLIKELY(pp_exchange_client_varies(ex))) {
        return address_tuple(pp_exchange_client(ex));
    }
    const struct sockaddr *peer = pp_exchange_peer(ex);
    if (peer->sa_family == AF_UNIX) {
        Py_RETURN_NONE;
    }
    PyObject *kept = pp_exchange_user(ex);
    return kept != NULL ? Py_NewRef(kept) : keep(ex, address_tuple(peer));
}

/* The local address as (host, port) or (path, None). New reference. */
static PyObject *server_of(PpCore *core, struct pp_exchange *ex)
{
    const struct sockaddr *address = pp_exchange_local(ex);
    size_t bytes;
    switch (address->sa_family) {
    case AF_INET:
        bytes = sizeof(struct sockaddr_in);
        break;
    case AF_INET6:
        bytes = sizeof(struct sockaddr_in6);
        break;
    case AF_UNIX: {
        PyObject *kept = pp_exchange_user(ex);
        return kept != NULL ? Py_NewRef(kept) : keep(ex, path_tuple(ex));
    }
    default:
        Py_RETURN_NONE;
    }
    if (core->server_cache == NULL || memcmp(&core->server_cache_addr, address, bytes) != 0) {
        PyObject *made = address_tuple(address);
        if (made == NULL) {
            return NULL;
        }
        memset(&core->server_cache_addr, 0, sizeof(core->server_cache_addr));
        memcpy(&core->server_cache_addr, address, bytes);
        Py_XSETREF(core->server_cache, made);
        /* Mostly there is one address, and then a copy of the template has it already. */
        if (core->scope_template != NULL &&
            PyDict_SetItem(core->scope_template, core->k.server, made) < 0) {
            Py_CLEAR(core->server_cache);
            return NULL;
        }
    }
    return Py_NewRef(core->server_cache);
}

/* ---- path ---- */

static inline bool bytes_equal(PyObject *bytes, const uint8_t *data, size_t len)
{
    return (size_t)PyBytes_GET_SIZE(bytes) == len &&
           memcmp(PyBytes_AS_STRING(bytes), data, len) == 0;
}

/* Percent-decoded, then UTF-8 with U+FFFD for what is malformed. New str. */
static PyObject *decode_path(const uint8_t *data, size_t len, bool encoded)
{
    if (!encoded) { /* the parser lets only ASCII into a target */
        PyObject *text = PyUnicode_New((Py_ssize_t)len, 127);
        if (text != NULL) {
            memcpy(PyUnicode_1BYTE_DATA(text), data, len);
        }
        return text;
    }
    uint8_t small[1024], *out = len <= sizeof(small) ? small : PyMem_Malloc(len);
    if (out == NULL) {
        return PyErr_NoMemory();
    }
    size_t n = pp_text_unescape(data, len, out);
    PyObject *text = PyUnicode_DecodeUTF8((const char *)out, (Py_ssize_t)n, "replace");
    if (out != small) {
        PyMem_Free(out);
    }
    return text;
}

static PyObject *concat(PyObject *prefix, PyObject *rest, bool text)
{
    PyObject *joined = text ? PyUnicode_Concat(prefix, rest) : NULL;
    if (!text) {
        joined = Py_NewRef(prefix);
        PyBytes_Concat(&joined, rest);
    }
    Py_DECREF(rest);
    return joined;
}

int pp_scope_set_root_path_mode(PpCore *core, const char *name)
{
    static const char *const names[PP_ROOT_PATH_MODES] = {"auto", "stripped", "unstripped"};
    for (int i = 0; i < PP_ROOT_PATH_MODES; i++) {
        if (name == NULL || strcmp(name, names[i]) == 0) {
            core->root_path_mode = (enum pp_root_path_mode)i;
            return 0;
        }
    }
    PyErr_Format(PyExc_ValueError, "root_path_mode: '%s' is none", name);
    return -1;
}

int pp_scope_under_root(PyObject *root_path, PyObject *path)
{
    Py_ssize_t root_len = PyUnicode_GET_LENGTH(root_path), len = PyUnicode_GET_LENGTH(path);
    Py_ssize_t match = PyUnicode_Tailmatch(path, root_path, 0, len, -1);
    if (match <= 0) {
        return (int)match;
    }
    return len == root_len || PyUnicode_READ_CHAR(path, root_len) == '/';
}

/* Puts the root path in front of a path whose proxy has taken it off: path and raw_path start with
 * it (ASGI HTTP spec, root_path). The references are replaced; -1 with an exception. */
static int mount(PpCore *core, PyObject **path, PyObject **raw)
{
    int under = core->root_path_mode == PP_ROOT_PATH_UNSTRIPPED;
    if (core->root_path_mode == PP_ROOT_PATH_AUTO) {
        under = pp_scope_under_root(core->root_path, *path);
    }
    if (under != 0) {
        return under < 0 ? -1 : 0;
    }
    *path = concat(core->root_path, *path, true);
    *raw = concat(core->root_path_bytes, *raw, false);
    return *path != NULL && *raw != NULL ? 0 : -1;
}

/* Sets path and raw_path in the template, unless they are there from the last request: then neither
 * they nor the copy's entries have to be made. */
static int prepare_path(PpCore *core, const struct pp_head *head, const uint8_t *base)
{
    static const uint8_t slash[1] = {'/'};
    const uint8_t *data = base + head->path.off;
    size_t len = head->path.len;
    if (len == 0) { /* absolute-form without a path, authority-form */
        data = slash;
        len = 1;
    }
    PyObject *last = core->template_target;
    if (last != NULL && bytes_equal(last, data, len)) {
        return 0;
    }
    PyObject *path = decode_path(data, len, head->path_encoded);
    PyObject *raw = PyBytes_FromStringAndSize((const char *)data, (Py_ssize_t)len);
    PyObject *target = Py_XNewRef(raw);
    int rc = -1;
    Py_CLEAR(core->template_target); /* until both are set */
    if (path != NULL && raw != NULL &&
        (PyBytes_GET_SIZE(core->root_path_bytes) == 0 || mount(core, &path, &raw) == 0) &&
        PyDict_SetItem(core->scope_template, core->k.path, path) == 0 &&
        PyDict_SetItem(core->scope_template, core->k.raw_path, raw) == 0) {
        core->template_target = Py_NewRef(target);
        rc = 0;
    }
    Py_XDECREF(target);
    Py_XDECREF(path);
    Py_XDECREF(raw);
    return rc;
}

/* The same with the peer's address, which stays for a connection's life. */
static int prepare_client(PpCore *core, struct pp_exchange *ex)
{
    PyObject *client = pp_scope_client(core, ex);
    if (client == NULL) {
        return -1;
    }
    int rc = 0;
    if (client != core->template_client) {
        Py_CLEAR(core->template_client);
        rc = PyDict_SetItem(core->scope_template, core->k.client, client);
        if (rc == 0) {
            core->template_client = Py_NewRef(client);
        }
    }
    Py_DECREF(client);
    return rc;
}

/* ---- headers ---- */

static inline uint32_t header_slot(uint16_t name_id, const uint8_t *name, size_t name_len,
                                   const uint8_t *value, size_t len)
{
    uint64_t a = 0, b = 0;
    if (len >= 8) {
        memcpy(&a, value, 8);
        memcpy(&b, value + len - 8, 8);
    } else {
        memcpy(&a, value, len);
    }
    uint64_t h = (a ^ (b * 0x9E3779B97F4A7C15u)) + len * 0x85EBCA6Bu;
    h ^= (uint64_t)name_id << 32 | (uint64_t)name_len << 48 | name[name_len / 2];
    h *= 0xFF51AFD7ED558CCDu;
    return (uint32_t)(h >> 40) % PP_HEADER_CACHE_SLOTS;
}

static bool worth_caching(const struct pp_field *f)
{
    if (f->value_len > PP_HEADER_CACHE_VALUE_MAX || f->name_len == 0) {
        return false;
    }
    switch (f->name_id) {
    case PP_H1_NAME_COOKIE:
    case PP_H1_NAME_AUTHORIZATION:
    case PP_H1_NAME_CONTENT_LENGTH:
    case PP_H1_NAME_SEC_WEBSOCKET_KEY:
    case PP_H1_NAME_X_REQUEST_ID:
        return false;
    case PP_H1_NAME_OTHER:
        return f->name_len <= 32; /* tokens of all kinds travel under names of all kinds... */
    default:
        return true;
    }
}

static PyObject *make_pair(PpCore *core, const uint8_t *name, size_t name_len, uint16_t name_id,
                           const uint8_t *value, size_t value_len)
{
    PyObject *pair = PyTuple_New(2);
    if (pair == NULL) {
        return NULL;
    }
    PyObject *n = name_id != PP_H1_NAME_OTHER
                      ? Py_NewRef(core->k.names[name_id])
                      : PyBytes_FromStringAndSize((const char *)name, (Py_ssize_t)name_len);
    PyObject *v = PyBytes_FromStringAndSize((const char *)value, (Py_ssize_t)value_len);
    if (n == NULL || v == NULL) {
        Py_XDECREF(n);
        Py_XDECREF(v);
        Py_DECREF(pair);
        return NULL;
    }
    PyTuple_SET_ITEM(pair, 0, n);
    PyTuple_SET_ITEM(pair, 1, v);
    return pair;
}

static PyObject *field_pair(PpCore *core, const struct pp_field *f, const uint8_t *base)
{
    const uint8_t *name = base + f->name_off, *value = base + f->value_off;
    if (!worth_caching(f)) {
        return make_pair(core, name, f->name_len, f->name_id, value, f->value_len);
    }
    uint32_t slot = header_slot(f->name_id, name, f->name_len, value, f->value_len);
    PyObject *pair = core->header_cache[slot];
    if (pair != NULL && bytes_equal(PyTuple_GET_ITEM(pair, 1), value, f->value_len) &&
        bytes_equal(PyTuple_GET_ITEM(pair, 0), name, f->name_len)) {
        return Py_NewRef(pair);
    }
    pair = make_pair(core, name, f->name_len, f->name_id, value, f->value_len);
    if (pair != NULL) {
        Py_XSETREF(core->header_cache[slot], Py_NewRef(pair));
    }
    return pair;
}

/* An absolute-form target's authority replaces Host (RFC 9112 3.2.2). */
static PyObject *host_pair(PpCore *core, const struct pp_head *head, const uint8_t *base)
{
    return make_pair(core, NULL, 0, PP_H1_NAME_HOST, base + head->authority.off,
                     head->authority.len);
}

static PyObject *headers_list(PpCore *core, const struct pp_head *head, const uint8_t *base)
{
    bool replace_host = head->authority.len > 0, host_seen = false;
    for (uint16_t i = 0; replace_host && i < head->field_count; i++) {
        host_seen |= head->fields[i].name_id == PP_H1_NAME_HOST;
    }
    Py_ssize_t extra = replace_host && !host_seen ? 1 : 0;
    PyObject *list = PyList_New(head->field_count + extra);
    if (list == NULL) {
        return NULL;
    }
    for (uint16_t i = 0; i < head->field_count; i++) {
        const struct pp_field *f = &head->fields[i];
        PyObject *pair = replace_host && f->name_id == PP_H1_NAME_HOST ? host_pair(core, head, base)
                                                                       : field_pair(core, f, base);
        if (pair == NULL) {
            Py_DECREF(list);
            return NULL;
        }
        PyList_SET_ITEM(list, i, pair);
    }
    if (extra) {
        PyObject *pair = host_pair(core, head, base);
        if (pair == NULL) {
            Py_DECREF(list);
            return NULL;
        }
        PyList_SET_ITEM(list, head->field_count, pair);
    }
    return list;
}

/* ---- the scope ---- */

static int set_new(PyObject *dict, PyObject *key, PyObject *value) /* steals value */
{
    if (value == NULL) {
        return -1;
    }
    int rc = PyDict_SetItem(dict, key, value);
    Py_DECREF(value);
    return rc;
}

static int set_method(PpCore *core, PyObject *scope, const struct pp_head *head,
                      const uint8_t *base)
{
    if (head->method_id == PP_METHOD_GET) {
        return 0; /* the template's */
    }
    if (head->method_id != PP_METHOD_OTHER) {
        return PyDict_SetItem(scope, core->k.method, core->k.methods[head->method_id]);
    }
    return set_new(scope, core->k.method,
                   PyUnicode_DecodeASCII((const char *)base + head->method.off,
                                         (Py_ssize_t)head->method.len, NULL));
}

/* Makes sure that the template's "asgi" is a dict that nobody else has and nobody has changed, so
 * that the next scope can have it: applications seldom keep it, and it is their own to change. */
static int refresh_asgi(PpCore *core)
{
    struct pp_constants *k = &core->k;
#ifndef Py_GIL_DISABLED
    PyObject *key, *value;
    Py_ssize_t pos = 0;
    PyObject *asgi = core->asgi_given;
    if (asgi != NULL && Py_REFCNT(asgi) == 2 && PyDict_GET_SIZE(asgi) == 2 &&
        PyDict_Next(asgi, &pos, &key, &value) && key == k->version && value == k->v3_0 &&
        PyDict_Next(asgi, &pos, &key, &value) && key == k->spec_version && value == k->v2_3) {
        return 0;
    }
#endif
    PyObject *made = PyDict_Copy(core->asgi_template);
    if (made == NULL || PyDict_SetItem(core->scope_template, k->asgi, made) < 0) {
        Py_XDECREF(made);
        return -1;
    }
    Py_XSETREF(core->asgi_given, made);
    return 0;
}

/* A copy of the template, with both addresses and the path. */
static PyObject *scope_begin(PpCore *core, struct pp_exchange *ex, const struct pp_head *head,
                             const uint8_t *base)
{
    PyObject *server = server_of(core, ex); /* may change the template, as all of these */
    PyObject *scope = NULL;
    if (server != NULL && refresh_asgi(core) == 0 && prepare_client(core, ex) == 0 &&
        prepare_path(core, head, base) == 0) {
        scope = PyDict_Copy(core->scope_template);
    }
    if (scope != NULL && server != core->server_cache &&
        PyDict_SetItem(scope, core->k.server, server) < 0) {
        Py_CLEAR(scope);
    }
    Py_XDECREF(server);
    return scope;
}

PyObject *pp_scope_new(PpCore *core, struct pp_exchange *ex)
{
    struct pp_constants *k = &core->k;
    const uint8_t *base;
    const struct pp_head *head = pp_exchange_head(ex, &base);
    PyObject *scope = scope_begin(core, ex, head, base);
    if (scope == NULL) {
        return NULL;
    }
    if (set_method(core, scope, head, base) < 0 ||
        set_new(scope, k->headers, headers_list(core, head, base)) < 0) {
        goto fail;
    }
    if (head->minor == 0 && PyDict_SetItem(scope, k->http_version, k->v1_0) < 0) {
        goto fail;
    }
    /* An absolute-form https target does not make the scheme https: the connection decides, or the
     * proxy before it. */
    if (PP_UNLIKELY(pp_exchange_client_https(ex)) &&
        PyDict_SetItem(scope, k->scheme, k->https) < 0) {
        goto fail;
    }
    if (head->query.len > 0 &&
        set_new(scope, k->query_string,
                PyBytes_FromStringAndSize((const char *)base + head->query.off,
                                          (Py_ssize_t)head->query.len)) < 0) {
        goto fail;
    }
    if (core->lifespan_state != NULL &&
        set_new(scope, k->state, PyDict_Copy(core->lifespan_state)) < 0) {
        goto fail;
    }
    return scope;
fail:
    Py_DECREF(scope);
    return NULL;
}
