/* h1_bench: nanoseconds per request head and per response head, for each scan variant.
 *
 * The best of many short rounds, so that a busy machine disturbs little. Not a test; build it with
 * optimisation (-Dbuildtype=release) before you believe it. docs/internals/parser.md has results.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "proto/h1_conn.h"
#include "proto/h1_scan.h"

#define ROUNDS 1000
#define REPEAT 500

static const struct pp_h1_limits LIMITS = {8192, 32768, 100, 0};
static const char *const HEADS[] = {
    "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /hello HTTP/1.1\r\nHost: 127.0.0.1:8000\r\nUser-Agent: wrk/4.1.0\r\nAccept: */*\r\n"
    "Connection: keep-alive\r\n\r\n",
    "GET /api/v1/items?page=3 HTTP/1.1\r\nHost: www.example.com\r\nConnection: keep-alive\r\n"
    "Cache-Control: max-age=0\r\nsec-ch-ua: \"Chromium\";v=\"118\", \"Other\";v=\"99\"\r\n"
    "sec-ch-ua-mobile: ?0\r\nUpgrade-Insecure-Requests: 1\r\n"
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) "
    "Chrome/118.0.0.0 Safari/537.36\r\n"
    "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8\r\n"
    "Sec-Fetch-Site: none\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-User: ?1\r\n"
    "Sec-Fetch-Dest: document\r\nAccept-Encoding: gzip, deflate, br\r\n"
    "Accept-Language: en-US,en;q=0.9\r\nCookie: session=abcdef0123456789; theme=dark\r\n\r\n",
};

static double now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static void parse(void *arg)
{
    static struct pp_field fields[PP_FIELDS_MAX];
    static struct pp_head head = {.fields = fields, .field_room = PP_FIELDS_MAX};
    static uint8_t buf[4096];
    const char *text = arg;
    size_t len = strlen(text);
    struct pp_h1_parser parser;
    memcpy(buf, text, len);
    for (int i = 0; i < REPEAT; i++) {
        pp_h1_parser_init(&parser);
        if (pp_h1_parse_head(&parser, buf, len, &LIMITS, &head) != PP_OK) {
            abort();
        }
    }
}

static void respond(void *arg)
{
    static uint8_t out[1024];
    struct pp_out_field fields[] = {
        {(const uint8_t *)"content-type", (const uint8_t *)"text/plain; charset=utf-8", 12, 25},
        {(const uint8_t *)"content-length", (const uint8_t *)"13", 14, 2}};
    struct pp_h1_framed framed;
    size_t written;
    (void)arg;
    for (int i = 0; i < REPEAT; i++) {
        struct pp_response r = {.status = 200,
                                .fields = fields,
                                .field_count = 2,
                                .complete = true,
                                .body_bytes = 13,
                                .request_minor = 1,
                                .keep_alive = true,
                                .date = "Sun, 06 Nov 1994 08:49:37 GMT",
                                .server = true};
        if (pp_h1_write_head(&r, out, sizeof out, &written, &framed) != PP_OK) {
            abort();
        }
    }
}

static double best_ns(void (*run)(void *), void *arg)
{
    double best = 1e12;
    for (int round = 0; round < ROUNDS; round++) {
        double start = now_ns();
        run(arg);
        double each = (now_ns() - start) / REPEAT;
        best = each < best ? each : best;
    }
    return best;
}

int main(void)
{
    struct pp_h1_scan_variants variants = pp_h1_scan_variants();
    for (size_t v = 0; variants.at[v] != NULL; v++) {
        pp_h1_scan = variants.at[v];
        for (size_t i = 0; i < sizeof HEADS / sizeof HEADS[0]; i++) {
            printf("%-7s request head, %3zu bytes: %6.1f ns\n", pp_h1_scan->name, strlen(HEADS[i]),
                   best_ns(parse, (void *)(uintptr_t)HEADS[i]));
        }
        printf("%-7s response head, 2 fields: %6.1f ns\n", pp_h1_scan->name,
               best_ns(respond, NULL));
    }
    return 0;
}
