/* The environ of a request (PEP 3333), built from the request head's spans.
 *
 * It starts as a copy of the context's template, which has every key that is always there, so that
 * filling it rarely resizes the dict. Header names with an underscore are dropped: with "-" mapped
 * to
 * "_" they could pass for other headers. "Proxy" is dropped because HTTP_PROXY means something else
 * to many clients. Repeated headers are joined. Text is latin-1, as PEP 3333 wants it. */
#include "bridge/wsgi_environ.h"
#include "bridge/scope.h"
#include "bridge/wsgi_input.h"

#include <string.h>

#include "base/text.h"
#include "net/address.h"

/* ---- constants ---- */

/* "HTTP_" and the name in upper case, "-" as "_". name has no underscore. */
static PyObject *header_key(const char *name, size_t len)
{
    PyObject *key = PyUnicode_New((Py_ssize_t)len + 5, 127);
    if (key == NULL) {
        return NULL;
    }
    Py_UCS1 *out = PyUnicode_1BYTE_DATA(key);
    memcpy(out, "HTTP_", 5);
    for (size_t i = 0; i < len; i++) {
        char c = name[i];
        out[5 + i] = (Py_UCS1)(c == '-' ? '_' : c >= 'a' && c <= 'z' ? c - 32 : c);
    }
    return key;
}

static int consts_init(struct pp_wsgi_consts *k)
{
#define PP_MAKE_(field, text) \
    if ((k->field = PyUnicode_InternFromString(text)) == NULL) { \
        return -1; \
    }
    PP_WSGI_TEXTS(PP_MAKE_)
#undef PP_MAKE_
    for (uint16_t i = PP_H1_NAME_OTHER + 1; i < PP_H1_NAME_COUNT; i++) {
        PyObject *key;
        if (i == PP_H1_NAME_CONTENT_TYPE) {
            key = Py_NewRef(k->content_type);
        } else if (i == PP_H1_NAME_CONTENT_LENGTH) {
            key = Py_NewRef(k->content_length);
        } else {
            key = header_key(pp_h1_name_text(i), pp_h1_name_len(i));
            if (key != NULL) {
                PyUnicode_InternInPlace(&key);
            }
        }
        if ((k->names[i] = key) == NULL) {
            return -1;
        }
    }
    return 0;
}

void pp_wsgi_environ_fini(struct pp_wsgi_consts *k)
{
#define PP_DROP_(field, text) Py_CLEAR(k->field);
    PP_WSGI_TEXTS(PP_DROP_)
#undef PP_DROP_
    for (int i = 0; i < PP_H1_NAME_COUNT; i++) {
        Py_CLEAR(k->names[i]);
    }
    Py_CLEAR(k->root_path);
    Py_CLEAR(k->empty_input);
    Py_CLEAR(k->template);
    Py_CLEAR(k->server);
}

int pp_wsgi_environ_visit(struct pp_wsgi_consts *k, visitproc visit, void *arg)
{
    Py_VISIT(k->empty_input);
    Py_VISIT(k->template);
    return 0;
}

/* ---- template ---- */

/* wsgi.errors: sys.stderr, or something that swallows when there is none. */
static PyObject *errors_stream(void)
{
    PyObject *sys = PyImport_ImportModule("sys");
    PyObject *stream = sys != NULL ? PyObject_GetAttrString(sys, "stderr") : NULL;
    Py_XDECREF(sys);
    if (stream == Py_None) {
        Py_DECREF(stream);
        PyObject *io = PyImport_ImportModule("io");
        stream = io != NULL ? PyObject_CallMethod(io, "open", "ss", "/dev/null", "w") : NULL;
        Py_XDECREF(io);
    }
    return stream;
}

static int fill_template(PpCore *core, struct pp_wsgi *w, PyObject *d, int multiprocess)
{
    struct pp_wsgi_consts *k = &w->k;
    PyObject *version = Py_BuildValue("(ii)", 1, 0), *errors = errors_stream();
    PyObject *multithread = PyBool_FromLong(w->lead.threads_max > 1);
    PyObject *multi = PyBool_FromLong(multiprocess);
    PyObject *empty = core->k.empty_str;
    int rc = -1;
    if (version == NULL || errors == NULL) {
        goto out;
    }
    struct {
        PyObject *key, *value;
    } items[] = {
        {k->request_method, core->k.methods[PP_METHOD_GET]},
        {k->script_name, k->root_path},
        {k->path_info, k->slash},
        {k->query_string, empty},
        {k->raw_uri, k->slash},
        {k->request_uri, k->slash},
        {k->server_name, k->localhost},
        {k->server_port, k->port_80},
        {k->server_protocol, k->http_1_1},
        {k->server_software, k->server_value},
        {k->remote_addr, empty},
        {k->remote_port, empty},
        {k->http_host, empty}, /* filled or taken out again */
        {k->wsgi_version, version},
        {k->wsgi_url_scheme, k->http},
        {k->wsgi_input, k->empty_input},
        {k->wsgi_errors, errors},
        {k->wsgi_multithread, multithread},
        {k->wsgi_multiprocess, multi},
        {k->wsgi_run_once, Py_False},
        {k->wsgi_input_terminated, Py_True},
        {k->wsgi_file_wrapper, (PyObject *)core->state->file_wrapper_type},
    };
    for (size_t i = 0; i < sizeof(items) / sizeof(items[0]); i++) {
        if (PyDict_SetItem(d, items[i].key, items[i].value) < 0) {
            goto out;
        }
    }
    rc = 0;
out:
    Py_XDECREF(version);
    Py_XDECREF(errors);
    Py_XDECREF(multithread);
    Py_XDECREF(multi);
    return rc;
}

/* PEP 3333: text in the environ is the bytes of UTF-8 as latin-1. What came as bytes that are no
 * UTF-8 (surrogates, PEP 383) is those bytes. */
static PyObject *bytes_as_latin1(PyObject *text)
{
    PyObject *bytes = PyUnicode_AsEncodedString(text, "utf-8", "surrogateescape");
    if (bytes == NULL) {
        return NULL;
    }
    PyObject *latin1 =
        PyUnicode_DecodeLatin1(PyBytes_AS_STRING(bytes), PyBytes_GET_SIZE(bytes), NULL);
    Py_DECREF(bytes);
    return latin1;
}

int pp_wsgi_environ_setup(PpCore *core, struct pp_wsgi *w, int multiprocess)
{
    struct pp_wsgi_consts *k = &w->k;
    if (consts_init(k) < 0) {
        return -1;
    }
    k->root_path = bytes_as_latin1(core->root_path);
    k->empty_input = pp_wsgi_input_new(w, NULL, core->state, (struct pp_queue_body){0});
    k->template = PyDict_New();
    if (k->root_path == NULL || k->empty_input == NULL || k->template == NULL) {
        return -1;
    }
    return fill_template(core, w, k->template, multiprocess);
}

/* ---- text ---- */

static PyObject *latin1(const uint8_t *data, size_t len)
{
    return PyUnicode_DecodeLatin1((const char *)data, (Py_ssize_t)len, NULL);
}

/* Percent-decoded bytes as latin-1 text; a malformed "%" stays as it is. */
static PyObject *decode_path(const uint8_t *data, size_t len)
{
    uint8_t small[512], *out = len <= sizeof(small) ? small : PyMem_Malloc(len);
    if (out == NULL) {
        return PyErr_NoMemory();
    }
    size_t n = pp_text_unescape(data, len, out);
    PyObject *text = latin1(out, n);
    if (out != small) {
        PyMem_Free(out);
    }
    return text;
}

/* Sets key to value, a new reference that is taken over; NULL passes the exception on. */
static int put(PyObject *env, PyObject *key, PyObject *value)
{
    if (value == NULL) {
        return -1;
    }
    int rc = PyDict_SetItem(env, key, value);
    Py_DECREF(value);
    return rc;
}

/* ---- addresses ---- */

/* (address, port) as text; ("", "") where there is none. */
static PyObject *address_pair(const struct sockaddr *address)
{
    char text[PP_ADDRESS_TEXT_MAX];
    uint8_t digits[PP_TEXT_DECIMAL_MAX];
    unsigned port;
    bool ip = pp_address_text(address, text, &port) > 0;
    size_t len = ip ? pp_text_put_decimal(digits, port) : 0;
    return Py_BuildValue("(ss#)", text, (const char *)digits, (Py_ssize_t)len);
}

/* As a trusted proxy says; REMOTE_PORT is 0 where it says none. */
static int put_forwarded(struct pp_wsgi_consts *k, PyObject *env, struct pp_exchange *ex)
{
    PyObject *pair = address_pair(pp_exchange_client(ex));
    int rc = pair == NULL ? -1 : PyDict_SetItem(env, k->remote_addr, PyTuple_GET_ITEM(pair, 0));
    if (rc == 0) {
        rc = PyDict_SetItem(env, k->remote_port, PyTuple_GET_ITEM(pair, 1));
    }
    if (rc == 0 && pp_exchange_client_https(ex)) {
        rc = PyDict_SetItem(env, k->wsgi_url_scheme, k->https);
    }
    Py_XDECREF(pair);
    return rc;
}

static int put_remote(struct pp_wsgi_consts *k, PyObject *env, struct pp_exchange *ex)
{
    if (PP_UNLIKELY(pp_exchange_client_varies(ex))) {
        return put_forwarded(k, env, ex);
    }
    PyObject *pair = pp_exchange_user(ex);
    if (pair == NULL) {
        if ((pair = address_pair(pp_exchange_peer(ex))) == NULL) {
            return -1;
        }
        pp_exchange_set_user(ex, pair); /* dropped by pp_core_release or close */
    }
    if (PyDict_SetItem(env, k->remote_addr, PyTuple_GET_ITEM(pair, 0)) < 0) {
        return -1;
    }
    return PyDict_SetItem(env, k->remote_port, PyTuple_GET_ITEM(pair, 1));
}

static size_t address_bytes(const struct sockaddr *address)
{
    return address->sa_family == AF_INET    ? sizeof(struct sockaddr_in)
           : address->sa_family == AF_INET6 ? sizeof(struct sockaddr_in6)
                                            : sizeof(address->sa_family);
}

/* SERVER_NAME and SERVER_PORT: our address; on a Unix socket what the Host header says. */
static int put_server(struct pp_wsgi_consts *k, PyObject *env, struct pp_exchange *ex,
                      const uint8_t *host, size_t host_len)
{
    const struct sockaddr *local = pp_exchange_local(ex);
    if (local != NULL && (local->sa_family == AF_INET || local->sa_family == AF_INET6)) {
        size_t bytes = address_bytes(local);
        if (k->server == NULL || memcmp(&k->server_addr, local, bytes) != 0) {
            PyObject *pair = address_pair(local);
            if (pair == NULL) {
                return -1;
            }
            memset(&k->server_addr, 0, sizeof(k->server_addr));
            memcpy(&k->server_addr, local, bytes);
            Py_XSETREF(k->server, pair);
        }
        if (PyDict_SetItem(env, k->server_name, PyTuple_GET_ITEM(k->server, 0)) < 0) {
            return -1;
        }
        return PyDict_SetItem(env, k->server_port, PyTuple_GET_ITEM(k->server, 1));
    }
    size_t name_len = host_len;
    for (size_t i = host_len; i > 0 && host[i - 1] != ']'; i--) {
        if (host[i - 1] == ':') {
            name_len = i - 1;
            break;
        }
    }
    if (name_len > 0 && put(env, k->server_name, latin1(host, name_len)) < 0) {
        return -1;
    }
    if (name_len + 1 < host_len) {
        return put(env, k->server_port, latin1(host + name_len + 1, host_len - name_len - 1));
    }
    return 0;
}

/* ---- headers ---- */

static int put_joined(PyObject *env, PyObject *key, PyObject *value, const char *separator)
{
    PyObject *old;
    int found = PyDict_GetItemRef(env, key, &old);
    if (found < 0) {
        return -1;
    }
    if (found == 0) {
        return PyDict_SetItem(env, key, value);
    }
    PyObject *joined = PyUnicode_FromFormat("%U%s%U", old, separator, value);
    Py_DECREF(old);
    return put(env, key, joined);
}

static bool name_allowed(const uint8_t *name, size_t len)
{
    return memchr(name, '_', len) == NULL && !(len == 5 && memcmp(name, "proxy", 5) == 0);
}

/* Fields but Host. seen: one bit for each known name. */
static int put_field(struct pp_wsgi_consts *k, PyObject *env, const struct pp_field *f,
                     const uint8_t *base, uint64_t *seen)
{
    PyObject *value = latin1(base + f->value_off, f->value_len);
    if (value == NULL) {
        return -1;
    }
    int rc;
    if (f->name_id != PP_H1_NAME_OTHER) {
        uint64_t bit = UINT64_C(1) << (f->name_id & 63);
        PyObject *key = k->names[f->name_id];
        rc = seen[f->name_id >> 6] & bit
                 ? put_joined(env, key, value, f->name_id == PP_H1_NAME_COOKIE ? "; " : ",")
                 : PyDict_SetItem(env, key, value);
        seen[f->name_id >> 6] |= bit;
    } else {
        PyObject *key = header_key((const char *)base + f->name_off, f->name_len);
        rc = key != NULL ? put_joined(env, key, value, ",") : -1;
        Py_XDECREF(key);
    }
    Py_DECREF(value);
    return rc;
}

/* All header fields; *host is the span of what HTTP_HOST says. */
static int put_fields(struct pp_wsgi_consts *k, PyObject *env, const struct pp_head *head,
                      const uint8_t *base, struct pp_span *host)
{
    uint64_t seen[PP_H1_NAME_COUNT / 64 + 1] = {0};
    bool has_host = false;
    for (uint16_t i = 0; i < head->field_count; i++) {
        const struct pp_field *f = &head->fields[i];
        if (f->name_id == PP_H1_NAME_HOST) {
            *host = (struct pp_span){.off = f->value_off, .len = f->value_len};
            has_host = true;
        } else if (f->name_id == PP_H1_NAME_OTHER &&
                   !name_allowed(base + f->name_off, f->name_len)) {
            continue;
        } else if (put_field(k, env, f, base, seen) < 0) {
            return -1;
        }
    }
    if (head->target_form == PP_TARGET_ABSOLUTE && head->authority.len > 0) {
        *host = head->authority; /* RFC 9112 section 3.2.2: the Host header does not count */
        has_host = true;
    }
    if (!has_host) {
        return PyDict_DelItem(env, k->http_host);
    }
    return put(env, k->http_host, latin1(base + host->off, host->len));
}

/* ---- the whole ---- */

/* SCRIPT_NAME is the root path; a proxy may or may not have left it in the target. */
static PyObject *path_info(PpCore *core, PyObject *root_path, const struct pp_head *head,
                           const uint8_t *base)
{
    PyObject *path = head->path_encoded ? decode_path(base + head->path.off, head->path.len)
                                        : latin1(base + head->path.off, head->path.len);
    Py_ssize_t root_len = PyUnicode_GET_LENGTH(root_path);
    if (path == NULL || root_len == 0 || core->root_path_mode == PP_ROOT_PATH_STRIPPED) {
        return path;
    }
    int under = pp_scope_under_root(root_path, path);
    if (under > 0) {
        Py_SETREF(path, PyUnicode_Substring(path, root_len, PyUnicode_GET_LENGTH(path)));
    } else if (under < 0) {
        Py_CLEAR(path);
    }
    return path;
}

static int put_request(PpCore *core, struct pp_wsgi_consts *k, PyObject *env,
                       const struct pp_head *head, const uint8_t *base)
{
    if (head->method_id != PP_METHOD_GET) {
        PyObject *method = head->method_id == PP_METHOD_OTHER
                               ? latin1(base + head->method.off, head->method.len)
                               : Py_NewRef(core->k.methods[head->method_id]);
        if (put(env, k->request_method, method) < 0) {
            return -1;
        }
    }
    if (head->minor == 0 && PyDict_SetItem(env, k->server_protocol, k->http_1_0) < 0) {
        return -1;
    }
    if (head->query.len > 0 &&
        put(env, k->query_string, latin1(base + head->query.off, head->query.len)) < 0) {
        return -1;
    }
    if (head->path.len > 0 &&
        put(env, k->path_info, path_info(core, k->root_path, head, base)) < 0) {
        return -1;
    }
    PyObject *target = latin1(base + head->target.off, head->target.len);
    if (target == NULL || PyDict_SetItem(env, k->raw_uri, target) < 0) {
        Py_XDECREF(target);
        return -1;
    }
    return put(env, k->request_uri, target);
}

/* What the environ says about a body. One that came in chunks and is here as a whole has its length
 * instead. Of one that is read as it comes, some only wait for the end that Content-Length says
 * when they are not told that the input ends by itself, and know then that a failure to read is the
 * client's. */
static int put_body(struct pp_wsgi_consts *k, PyObject *env, const struct pp_head *head,
                    const struct pp_queue_body *body)
{
    if (body->streams) {
        return head->chunked ? 0 : PyDict_DelItem(env, k->wsgi_input_terminated);
    }
    if (!head->chunked) {
        return 0;
    }
    return PyDict_DelItem(env, k->names[PP_H1_NAME_TRANSFER_ENCODING]) < 0
               ? -1
               : put(env, k->content_length, PyUnicode_FromFormat("%zu", body->len));
}

PyObject *pp_wsgi_environ_new(PpCore *core, struct pp_wsgi *w, struct pp_exchange *ex,
                              PyObject *input, const struct pp_queue_body *body)
{
    struct pp_wsgi_consts *k = &w->k;
    const uint8_t *base;
    const struct pp_head *head = pp_exchange_head(ex, &base);
    struct pp_span host = {0, 0};
    PyObject *env = PyDict_Copy(k->template);
    if (env == NULL) {
        return NULL;
    }
    if (put_request(core, k, env, head, base) < 0 || put_fields(k, env, head, base, &host) < 0 ||
        put_remote(k, env, ex) < 0 || put_server(k, env, ex, base + host.off, host.len) < 0 ||
        (input != NULL && PyDict_SetItem(env, k->wsgi_input, input) < 0) ||
        (body != NULL && put_body(k, env, head, body) < 0)) {
        Py_DECREF(env);
        return NULL;
    }
    return env;
}
