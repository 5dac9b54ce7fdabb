/* Parses one request head over and over, for heads.py: `heads ROUNDS COUNT PARSER... <HEAD`.
 *
 * PARSER is `ppserver` or, if compiled WITH_LLHTTP, `llhttp`. In each round each of them in turn
 * parses the head COUNT times; a line `PARSER NANOSECONDS`, of processor time, is printed for each.
 * Before them stands a line with the scans in use, the head's bytes, and its fields.
 *
 * Each parser has a copy of the head of its own. Ours lower-cases names in place, once: after the
 * first parse a head stays as it is, which is checked, so nothing is copied in between, and every
 * parse does the same work. llhttp only has callbacks; here they note the target and the fields, as
 * any user of it must. It is set up once, as on a keep-alive connection; ours is, too, for each
 * head, for that is how it is used. A head that is not parsed, or not wholly, ends the program, and
 * so does one of which the parsers count different fields. */
#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "proto/h1_parse.h"
#include "proto/h1_scan.h"

#ifdef WITH_LLHTTP
#include <llhttp.h>
#endif

enum { HEAD_BYTES_MAX = 16384, ROUNDS_MAX = 10000, COUNT_MAX = 100000000 };

/* The fields of a whole head, or -1, when what is wrong has been printed. */
typedef int parse_fn(uint8_t *head, size_t len);

struct parser {
    const char *name;
    parse_fn *parse;
    uint8_t head[HEAD_BYTES_MAX]; /* what it parses */
};

static int refuse(const char *parser, const char *why)
{
    fprintf(stderr, "heads: %s: %s\n", parser, why);
    return -1;
}

/* ---- ours ---- */

static const struct pp_h1_limits LIMITS = {
    .request_line_bytes = 8192, .head_bytes = 32768, .field_count = 100, .body_bytes = 0};
#if __has_include("proto/head.h")
static struct pp_field fields[PP_FIELDS_MAX];
static struct pp_head ours = {.fields = fields, .field_room = PP_FIELDS_MAX};
#else
static struct pp_h1_head ours; /* a tree to compare with, whose heads had their fields inside */
#endif

static int parse_ours(uint8_t *head, size_t len)
{
    struct pp_h1_parser parser;
    pp_h1_parser_init(&parser);
    int rc = pp_h1_parse_head(&parser, head, len, &LIMITS, &ours);
    if (rc != PP_OK) {
        return refuse("ppserver", rc == PP_AGAIN ? "the head does not end" : pp_err_text(rc));
    }
    return ours.head_bytes == len ? ours.field_count : refuse("ppserver", "more than a head");
}

/* ---- llhttp ---- */

#ifdef WITH_LLHTTP
struct span {
    const char *at;
    size_t len;
};

static struct {
    struct span target, names[PP_FIELDS_MAX], values[PP_FIELDS_MAX];
    int field_count;
    bool complete;
} theirs;

static int on_begin(llhttp_t *parser)
{
    (void)parser;
    theirs.field_count = 0;
    theirs.complete = false;
    return 0;
}

static int on_target(llhttp_t *parser, const char *at, size_t len)
{
    (void)parser;
    theirs.target = (struct span){at, len};
    return 0;
}

static int on_name(llhttp_t *parser, const char *at, size_t len)
{
    (void)parser;
    if (theirs.field_count == PP_FIELDS_MAX) {
        return -1;
    }
    theirs.names[theirs.field_count] = (struct span){at, len};
    return 0;
}

static int on_value(llhttp_t *parser, const char *at, size_t len)
{
    (void)parser;
    theirs.values[theirs.field_count++] = (struct span){at, len};
    return 0;
}

static int on_complete(llhttp_t *parser)
{
    (void)parser;
    theirs.complete = true;
    return 0;
}

static llhttp_settings_t settings;
static llhttp_t state;

static void set_up(void)
{
    llhttp_settings_init(&settings);
    settings.on_message_begin = on_begin;
    settings.on_url = on_target;
    settings.on_header_field = on_name;
    settings.on_header_value = on_value;
    settings.on_headers_complete = on_complete;
    llhttp_init(&state, HTTP_REQUEST, &settings);
}

static int parse_theirs(uint8_t *head, size_t len)
{
    llhttp_errno_t rc = llhttp_execute(&state, (const char *)head, len);
    if (rc != HPE_OK) {
        return refuse("llhttp", llhttp_errno_name(rc));
    }
    return theirs.complete ? theirs.field_count : refuse("llhttp", "the head does not end");
}
#endif

/* ---- rounds ---- */

static struct parser parsers[] = {
    {.name = "ppserver", .parse = parse_ours},
#ifdef WITH_LLHTTP
    {.name = "llhttp", .parse = parse_theirs},
#endif
};
enum { PARSERS = sizeof parsers / sizeof parsers[0] };

static struct parser *parser_of(const char *name)
{
    for (int i = 0; i < PARSERS; i++) {
        if (strcmp(parsers[i].name, name) == 0) {
            return &parsers[i];
        }
    }
    (void)refuse(name, "no such parser");
    exit(2);
}

static int64_t now_ns(void)
{
    struct timespec t;
    if (clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t) != 0) {
        perror("heads: clock_gettime");
        exit(1);
    }
    return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

/* Parses it twice: the fields, or -1. The second time nothing may change, nor from then on. */
static int prove(struct parser *parser, const uint8_t *text, size_t len)
{
    static uint8_t first[HEAD_BYTES_MAX];
    memcpy(parser->head, text, len);
    int fields = parser->parse(parser->head, len);
    if (fields < 0) {
        return -1;
    }
    memcpy(first, parser->head, len);
    if (parser->parse(parser->head, len) != fields || memcmp(first, parser->head, len) != 0) {
        return refuse(parser->name, "a parsed head is not parsed as before");
    }
    return fields;
}

static int64_t stretch_ns(struct parser *parser, size_t len, int fields, long count)
{
    int64_t start = now_ns();
    for (long i = 0; i < count; i++) {
        if (parser->parse(parser->head, len) != fields) {
            (void)refuse(parser->name, "other fields than before");
            exit(1);
        }
    }
    return now_ns() - start;
}

static long number(const char *text, long high)
{
    char *end = NULL;
    long value = strtol(text, &end, 10);
    if (end == text || *end != '\0' || value < 1 || value > high) {
        fprintf(stderr, "heads: expected 1 to %ld, not %s\n", high, text);
        exit(2);
    }
    return value;
}

int main(int argc, char **argv)
{
    if (argc < 4 || argc > 3 + PARSERS) {
        fprintf(stderr, "usage: heads ROUNDS COUNT PARSER... <HEAD\n");
        return 2;
    }
    long rounds = number(argv[1], ROUNDS_MAX), count = number(argv[2], COUNT_MAX);
    static uint8_t text[HEAD_BYTES_MAX + 1];
    size_t len = fread(text, 1, sizeof text, stdin);
    if (ferror(stdin) || len > HEAD_BYTES_MAX) {
        fprintf(stderr, "heads: no head of up to %d bytes on standard input\n", HEAD_BYTES_MAX);
        return 1;
    }
    pp_h1_scan_init();
#ifdef WITH_LLHTTP
    set_up();
#endif
    int fields = prove(parser_of(argv[3]), text, len);
    for (int i = 4; i < argc && fields >= 0; i++) {
        int found = prove(parser_of(argv[i]), text, len);
        fields = found < 0 || found == fields ? found : refuse(argv[i], "finds other fields");
    }
    if (fields < 0) {
        return 1;
    }
    printf("%s %zu %d\n", pp_h1_scan->name, len, fields);
    for (long round = 0; round < rounds; round++) {
        for (int i = 3; i < argc; i++) {
            struct parser *parser = parser_of(argv[i]);
            printf("%s %" PRId64 "\n", parser->name, stretch_ns(parser, len, fields, count));
        }
    }
    if (fflush(stdout) != 0 || ferror(stdout)) {
        perror("heads: standard output");
        return 1;
    }
    return 0;
}
