/* Fuzz target: the head parser.
 *
 * The first two bytes choose limits and cuts, the rest is input. Whole and in pieces must give the
 * same verdict and the same head; what is accepted is held against the grammar once more, by a
 * slow and independent look at the bytes. */
#include "fuzz.h"
#include "proto/h1_parse.h"
#include "proto/h1_scan.h"

static const char TCHARS[] = "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz";

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    pp_h1_scan_init();
    return 0;
}

static void check_span(struct pp_span span, const struct pp_head *head)
{
    FUZZ_CHECK(span.off <= head->head_bytes && span.len <= head->head_bytes - span.off);
}

static void check_fields(const uint8_t *buf, const struct pp_head *head)
{
    unsigned hosts = 0, lengths = 0, codings = 0;
    for (unsigned i = 0; i < head->field_count; i++) {
        const struct pp_field *f = &head->fields[i];
        check_span((struct pp_span){f->name_off, f->name_len}, head);
        check_span((struct pp_span){f->value_off, f->value_len}, head);
        FUZZ_CHECK(f->name_len > 0);
        for (unsigned k = 0; k < f->name_len; k++) {
            uint8_t c = buf[f->name_off + k];
            FUZZ_CHECK(c != 0 && strchr(TCHARS, c) != NULL);
        }
        for (unsigned k = 0; k < f->value_len; k++) {
            uint8_t c = buf[f->value_off + k];
            FUZZ_CHECK(c == '\t' || (c >= 0x20 && c != 0x7f));
            FUZZ_CHECK((k > 0 && k + 1 < f->value_len) || (c != ' ' && c != '\t'));
        }
        FUZZ_CHECK(f->name_id == pp_h1_name_find(buf + f->name_off, f->name_len));
        hosts += f->name_id == PP_H1_NAME_HOST;
        lengths += f->name_id == PP_H1_NAME_CONTENT_LENGTH;
        codings += f->name_id == PP_H1_NAME_TRANSFER_ENCODING;
    }
    FUZZ_CHECK(hosts == 1 || (hosts == 0 && head->minor == 0));
    FUZZ_CHECK(lengths + codings <= 1);
    FUZZ_CHECK(head->has_content_length == (lengths == 1) && head->chunked == (codings == 1));
    FUZZ_CHECK(!head->chunked || head->minor == 1);
    FUZZ_CHECK(!head->has_content_length || head->content_length <= INT64_MAX);
}

static void check_head(const uint8_t *buf, size_t size, const struct pp_head *head,
                       const struct pp_h1_limits *limits)
{
    FUZZ_CHECK(head->head_bytes <= size && head->head_bytes <= limits->head_bytes);
    FUZZ_CHECK(memcmp(buf + head->head_bytes - 4, "\r\n\r\n", 4) == 0);
    FUZZ_CHECK(head->field_count <= limits->field_count && head->minor <= 1);
    check_span(head->method, head);
    check_span(head->target, head);
    check_span(head->path, head);
    check_span(head->query, head);
    check_span(head->authority, head);
    FUZZ_CHECK(head->method.len >= 1 && head->method.len <= 32 && head->target.len >= 1);
    FUZZ_CHECK(head->method.len + head->target.len + 10 <= limits->request_line_bytes);
    for (unsigned i = 0; i < head->target.len; i++) {
        uint8_t c = buf[head->target.off + i];
        FUZZ_CHECK(c > 0x20 && c < 0x7f && c != '#');
    }
    /* Every line ends in CRLF and there is no CR or LF elsewhere. */
    for (size_t i = 0; i < head->head_bytes; i++) {
        FUZZ_CHECK(buf[i] != '\r' || buf[i + 1] == '\n');
        FUZZ_CHECK(buf[i] != '\n' || (i > 0 && buf[i - 1] == '\r'));
    }
    check_fields(buf, head);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct pp_field fields[2][PP_FIELDS_MAX];
    static struct pp_head whole = {.fields = fields[0], .field_room = PP_FIELDS_MAX};
    static struct pp_head pieces = {.fields = fields[1], .field_room = PP_FIELDS_MAX};
    struct pp_h1_limits limits = {8192, 32768, 100, 0};
    struct pp_h1_parser p;
    uint32_t state;
    if (size < 3) {
        return 0;
    }
    if (data[0] & 1) {
        limits = (struct pp_h1_limits){(uint32_t)(data[0] >> 1), data[1] + 1u, 5, 0};
    }
    state = data[0] * 256u + data[1];
    data += 2;
    size -= 2;
    uint8_t *a = fuzz_copy(data, size);
    pp_h1_parser_init(&p);
    int verdict = pp_h1_parse_head(&p, a, size, &limits, &whole);
    if (verdict == PP_OK) {
        check_head(a, size, &whole, &limits);
    }

    pieces.field_room = (uint16_t)(fuzz_next(&state) % 8);
    pp_h1_parser_init(&p);
    uint8_t *b = fuzz_copy(data, size);
    int rc = PP_AGAIN;
    for (size_t seen = 0; rc == PP_AGAIN && seen < size;) {
        size_t step = 1 + (fuzz_next(&state) & 3 ? 0 : fuzz_next(&state) % 40);
        seen = step > size - seen ? size : seen + step;
        /* Only what has arrived is readable; what was lower-cased comes along. */
        uint8_t *piece = fuzz_copy(b, seen);
        rc = pp_h1_parse_head(&p, piece, seen, &limits, &pieces);
        while (rc == PP_NO_ROOM) {
            FUZZ_CHECK(pieces.field_count == pieces.field_room);
            pieces.field_room = (uint16_t)(pieces.field_room + 1 + fuzz_next(&state) % 8);
            rc = pp_h1_parse_head(&p, piece, seen, &limits, &pieces);
        }
        memcpy(b, piece, seen);
        free(piece);
    }
    FUZZ_CHECK(rc == verdict);
    if (rc == PP_OK) {
        FUZZ_CHECK(pieces.head_bytes == whole.head_bytes);
        FUZZ_CHECK(memcmp(a, b, whole.head_bytes) == 0);
        FUZZ_CHECK(pieces.field_count == whole.field_count);
        FUZZ_CHECK(memcmp(&pieces.path, &whole.path, sizeof whole.path) == 0);
        FUZZ_CHECK(memcmp(&pieces.query, &whole.query, sizeof whole.query) == 0);
        FUZZ_CHECK(
            memcmp(pieces.fields, whole.fields, whole.field_count * sizeof whole.fields[0]) == 0);
        FUZZ_CHECK(pieces.keep_alive == whole.keep_alive && pieces.chunked == whole.chunked);
        FUZZ_CHECK(pieces.content_length == whole.content_length);
    }
    free(a);
    free(b);
    return 0;
}
