/* Fuzz target: body framing.
 *
 * The first four bytes choose kind, length, limit and cuts. Whole, in place, against in pieces,
 * into another buffer; and a chunked body that was accepted is encoded anew and must decode to
 * itself. */
#include "fuzz.h"
#include "proto/h1_body.h"
#include "proto/h1_scan.h"
#include "proto/h1_write.h"

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    pp_h1_scan_init();
    return 0;
}

static struct pp_field head_fields[PP_FIELDS_MAX];
static struct pp_head head = {.fields = head_fields, .field_room = PP_FIELDS_MAX};

static int begin(struct pp_h1_body *body, uint64_t limit)
{
    struct pp_h1_limits limits = {8192, 32768, 100, limit};
    return pp_h1_body_init(body, &head, &limits);
}

/* One chunk with everything, then the end. */
static void check_round_trip(const uint8_t *body_bytes, size_t len)
{
    struct pp_h1_body body;
    uint8_t *wire = malloc(len + 64);
    size_t n = 0, consumed, produced;
    if (wire == NULL) {
        abort();
    }
    if (len > 0) {
        n = pp_h1_write_chunk_prefix(len, wire);
        memcpy(wire + n, body_bytes, len);
        memcpy(wire + n + len, "\r\n", 2);
        n += len + 2;
    }
    memcpy(wire + n, "0\r\n\r\n", 5);
    n += 5;
    FUZZ_CHECK(begin(&body, 0) == PP_OK);
    FUZZ_CHECK(pp_h1_body_decode(&body, wire, n, wire, &consumed, &produced) == PP_OK);
    FUZZ_CHECK(consumed == n && produced == len && memcmp(wire, body_bytes, len) == 0);
    free(wire);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct pp_h1_body body;
    size_t consumed, produced;
    if (size < 4) {
        return 0;
    }
    head = (struct pp_head){.fields = head_fields, .field_room = PP_FIELDS_MAX};
    head.chunked = (data[0] & 1) != 0;
    head.has_content_length = !head.chunked;
    head.content_length = data[1];
    uint64_t limit = data[2];
    uint32_t state = data[3];
    data += 4;
    size -= 4;
    int verdict = begin(&body, limit);
    if (verdict != PP_OK) {
        FUZZ_CHECK(verdict == PP_ERR_BODY_TOO_LARGE && !head.chunked &&
                   head.content_length > limit);
        return 0;
    }
    uint8_t *whole = fuzz_copy(data, size);
    verdict = pp_h1_body_decode(&body, whole, size, whole, &consumed, &produced);
    FUZZ_CHECK(consumed <= size && produced <= consumed);
    FUZZ_CHECK(body.total == produced && (limit == 0 || produced <= limit));
    FUZZ_CHECK(verdict != PP_AGAIN || consumed == size);
    FUZZ_CHECK((verdict == PP_OK) == body.done);
    if (verdict == PP_OK && head.chunked) {
        check_round_trip(whole, produced);
    }

    uint8_t *out = malloc(size + 1);
    size_t at = 0, len = 0;
    int rc = body.kind == PP_H1_BODY_NONE ? PP_OK : PP_AGAIN;
    if (out == NULL || begin(&body, limit) != PP_OK) {
        abort();
    }
    while (rc == PP_AGAIN && at < size) {
        size_t step = 1 + (fuzz_next(&state) & 3 ? 0 : fuzz_next(&state) % 30), c, n;
        step = step > size - at ? size - at : step;
        uint8_t *piece = fuzz_copy(data + at, step);
        rc = pp_h1_body_decode(&body, piece, step, out + len, &c, &n);
        free(piece);
        FUZZ_CHECK(c <= step && n <= c && (rc != PP_AGAIN || c == step));
        at += c;
        len += n;
    }
    FUZZ_CHECK(rc == verdict && at == consumed && len == produced);
    FUZZ_CHECK(memcmp(out, whole, len) == 0);
    free(out);
    free(whole);
    return 0;
}
