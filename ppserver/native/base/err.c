/* Error table and the last word of a failed assertion.
 *
 * Owns the mapping from an error code to its status, text and counter name; everything is made from
 * PP_ERR_TABLE, so a new error is one new line there. Constant data: any thread may ask.
 * Leaves out: what an answer looks like (proto/h1_write.c) and who counts (net/). */
#include "base/err.h"

#include <assert.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/assert.h"

struct entry {
    int16_t status;
    const char *text;
};

static const struct entry TABLE[] = {
#define ENTRY(name, status, class_, text) {status, text},
    PP_ERR_TABLE(ENTRY)
#undef ENTRY
};

static_assert(sizeof TABLE / sizeof TABLE[0] == PP_ERR_COUNT, "one entry per error");
static_assert(PP_ERR_END_ < 0, "errors are negative");

/* The table only has upper-case names and counters want lower-case ones; a unit test holds the two
 * lists together. */
static const char *const NAMES[] = {
    "bad_request_line",
    "bad_method",
    "bad_target",
    "bad_version",
    "bad_header",
    "bad_host",
    "bad_content_length",
    "bad_transfer_coding",
    "unknown_transfer_coding",
    "bad_expect",
    "bad_chunk",
    "bad_trailer",
    "uri_too_long",
    "head_too_large",
    "too_many_fields",
    "body_too_large",
    "header_timeout",
    "body_timeout",
    "write_timeout",
    "idle_timeout",
    "disconnected",
    "overloaded",
    "no_memory",
    "no_descriptors",
    "system",
    "app_bad_status",
    "app_bad_header_name",
    "app_bad_header_value",
    "app_bad_reason",
    "app_bad_content_length",
    "app_body_too_long",
    "app_body_too_short",
    "app_failed",
};

static_assert(sizeof NAMES / sizeof NAMES[0] == PP_ERR_COUNT, "one name per error");

int pp_err_index(int code)
{
    return code > PP_ERR_BASE_ && code < PP_ERR_END_ ? code - PP_ERR_BASE_ - 1 : -1;
}

int pp_err_at(int index)
{
    PP_ASSERT(index >= 0 && index < PP_ERR_COUNT);
    return PP_ERR_BASE_ + 1 + index;
}

int pp_err_status(int code)
{
    int i = pp_err_index(code);
    return i < 0 ? 0 : TABLE[i].status;
}

const char *pp_err_text(int code)
{
    int i = pp_err_index(code);
    if (i >= 0) {
        return TABLE[i].text;
    }
    return code == PP_OK ? "ok" : code == PP_AGAIN ? "more is needed" : "unknown error";
}

const char *pp_err_name(int code)
{
    int i = pp_err_index(code);
    return i < 0 ? NULL : NAMES[i];
}

_Noreturn void pp_assert_fail(const char *what, const char *file, int line)
{
    fprintf(stderr, "ppserver: internal error: %s does not hold (%s:%d)\n", what, file, line);
    fflush(stderr);
    abort();
}
