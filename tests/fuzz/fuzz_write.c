/* Fuzz target: response heads.
 *
 * The input is a list of fields an application might return, any bytes. Whatever is accepted comes
 * out as exactly one head: so many CRLFs as lines, no other CR or LF, no NUL, framed once. */
#include "fuzz.h"
#include "proto/h1_scan.h"
#include "proto/h1_write.h"

#define FIELDS_MAX 16

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    pp_h1_scan_init();
    return 0;
}

struct input {
    const uint8_t *data;
    size_t size;
};

static const uint8_t *take(struct input *in, size_t *len)
{
    size_t n = in->size > 0 ? in->data[0] % 40 : 0;
    if (in->size > 0) {
        in->data++;
        in->size--;
    }
    *len = n > in->size ? in->size : n;
    const uint8_t *at = in->data;
    in->data += *len;
    in->size -= *len;
    return at;
}

static void check(const uint8_t *out, size_t len, const struct pp_h1_framed *framed)
{
    size_t ends = 0;
    FUZZ_CHECK(len >= 4 && memcmp(out + len - 4, "\r\n\r\n", 4) == 0);
    FUZZ_CHECK(memcmp(out, "HTTP/1.1 ", 9) == 0);
    for (size_t i = 0; i < len; i++) {
        FUZZ_CHECK(out[i] != 0 && (out[i] != '\r' || out[i + 1] == '\n'));
        FUZZ_CHECK(out[i] != '\n' || out[i - 1] == '\r');
        ends += i + 4 <= len && memcmp(out + i, "\r\n\r\n", 4) == 0;
    }
    FUZZ_CHECK(ends == 1);
    FUZZ_CHECK(framed->framing != PP_H1_FRAME_CLOSE || !framed->keep_alive);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct pp_out_field fields[FIELDS_MAX];
    struct pp_h1_framed framed;
    struct input in = {data + 4, size - 4};
    size_t written;
    if (size < 4) {
        return 0;
    }
    struct pp_response r = {.status = data[0] * 4 + (data[1] & 3),
                            .fields = fields,
                            .complete = (data[1] & 4) != 0,
                            .body_bytes = data[2],
                            .request_head = (data[1] & 8) != 0,
                            .request_minor = (data[1] >> 4) & 1,
                            .keep_alive = (data[1] & 32) != 0,
                            .date = data[1] & 64 ? "Sun, 06 Nov 1994 08:49:37 GMT" : NULL,
                            .server = (data[1] & 128) != 0};
    if (data[3] & 1) {
        r.reason = take(&in, &r.reason_len);
    }
    while (in.size > 0 && r.field_count < FIELDS_MAX) {
        struct pp_out_field *f = &fields[r.field_count++];
        f->name = take(&in, &f->name_len);
        f->value = take(&in, &f->value_len);
    }
    r.extra_fields = fields; /* the same again: all are there already, so none is added */
    r.extra_count = data[3] & 2 ? r.field_count : 0;
    size_t bound = pp_h1_write_bound(&r);
    uint8_t *out = malloc(bound);
    if (out == NULL) {
        abort();
    }
    int rc = pp_h1_write_head(&r, out, bound, &written, &framed);
    if (rc == PP_OK) {
        FUZZ_CHECK(written <= bound && r.status >= 200 && r.status <= 999);
        check(out, written, &framed);
    } else {
        FUZZ_CHECK(pp_err_status(rc) == 500);
    }
    free(out);
    return 0;
}
