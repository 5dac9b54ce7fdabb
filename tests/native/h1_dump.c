/* h1_dump: reads input bytes on stdin and prints the event log of h1_feed.h.
 *
 *   h1_dump [--cuts whole|bytes|all] [--limits LINE,HEAD,FIELDS,BODY] [--scan NAME] [--batch]
 *
 * "all" runs the input whole, byte by byte and cut at every point, demands that the logs are equal
 * (exit code 1 and both logs when they are not) and prints it once. With --batch stdin is a
 * sequence of inputs, each behind its length as four little-endian bytes, and so is the output of
 * logs. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "h1_feed.h"
#include "proto/h1_scan.h"

enum cuts { WHOLE, BYTES, ALL };

static uint8_t *read_all(size_t *len)
{
    uint8_t *data = NULL;
    size_t cap = 0;
    *len = 0;
    for (;;) {
        if (*len == cap) {
            cap = cap * 2 + 4096;
            data = realloc(data, cap);
            if (data == NULL) {
                abort();
            }
        }
        size_t n = fread(data + *len, 1, cap - *len, stdin);
        if (n == 0) {
            return data;
        }
        *len += n;
    }
}

static int compare(const struct feed_log *whole, const struct feed_log *cut, const char *how,
                   size_t at)
{
    if (whole->len == cut->len && memcmp(whole->text, cut->text, whole->len) == 0) {
        return 0;
    }
    fprintf(stderr, "%s %zu changes the result\n--- whole\n%s--- cut\n%s", how, at, whole->text,
            cut->text);
    return 1;
}

static int run(const uint8_t *data, size_t len, enum cuts cuts, const struct pp_h1_limits *limits,
               struct feed_log *log)
{
    struct feed_log cut = {0};
    int rc = 0;
    feed_run(data, len, limits, cuts == BYTES ? feed_bytes : feed_whole, NULL, log);
    if (cuts == ALL) {
        feed_run(data, len, limits, feed_bytes, NULL, &cut);
        rc = compare(log, &cut, "feeding bytes: length", len);
        for (size_t at = 1; at < len && rc == 0; at++) {
            feed_run(data, len, limits, feed_once, &at, &cut);
            rc = compare(log, &cut, "cutting at", at);
        }
    }
    feed_log_fini(&cut);
    return rc;
}

static int run_batch(const uint8_t *in, size_t in_len, enum cuts cuts,
                     const struct pp_h1_limits *limits)
{
    struct feed_log log = {0};
    int rc = 0;
    for (size_t at = 0; at + 4 <= in_len && rc == 0;) {
        size_t len =
            in[at] | (size_t)in[at + 1] << 8 | (size_t)in[at + 2] << 16 | (size_t)in[at + 3] << 24;
        at += 4;
        if (len > in_len - at) {
            fprintf(stderr, "truncated batch\n");
            rc = 2;
            break;
        }
        rc = run(in + at, len, cuts, limits, &log);
        at += len;
        uint8_t prefix[4] = {(uint8_t)log.len, (uint8_t)(log.len >> 8), (uint8_t)(log.len >> 16),
                             (uint8_t)(log.len >> 24)};
        fwrite(prefix, 1, 4, stdout);
        fwrite(log.text, 1, log.len, stdout);
    }
    feed_log_fini(&log);
    return rc;
}

static int usage(void)
{
    fprintf(stderr, "usage: h1_dump [--cuts whole|bytes|all] [--limits LINE,HEAD,FIELDS,BODY] "
                    "[--scan NAME] [--batch]\n");
    return 2;
}

static int choose_scan(const char *name)
{
    struct pp_h1_scan_variants variants = pp_h1_scan_variants();
    for (size_t i = 0; variants.at[i] != NULL; i++) {
        if (strcmp(variants.at[i]->name, name) == 0) {
            pp_h1_scan = variants.at[i];
            return 0;
        }
    }
    return usage();
}

int main(int argc, char **argv)
{
    struct pp_h1_limits limits = feed_limits;
    enum cuts cuts = WHOLE;
    int batch = 0, rc = 0;
    pp_h1_scan_init();
    for (int i = 1; i < argc && rc == 0; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : "";
        unsigned line, head, fields;
        unsigned long long body;
        if (strcmp(argv[i], "--batch") == 0) {
            batch = 1;
            continue;
        }
        i++;
        if (strcmp(argv[i - 1], "--cuts") == 0) {
            cuts = strcmp(value, "all") == 0 ? ALL : strcmp(value, "bytes") == 0 ? BYTES : WHOLE;
        } else if (strcmp(argv[i - 1], "--limits") == 0 &&
                   sscanf(value, "%u,%u,%u,%llu", &line, &head, &fields, &body) == 4) {
            limits = (struct pp_h1_limits){line, head, fields, body};
        } else if (strcmp(argv[i - 1], "--scan") == 0) {
            rc = choose_scan(value);
        } else {
            rc = usage();
        }
    }
    if (rc == 0) {
        size_t len;
        struct feed_log log = {0};
        uint8_t *in = read_all(&len);
        if (batch) {
            rc = run_batch(in, len, cuts, &limits);
        } else {
            rc = run(in, len, cuts, &limits, &log);
            fwrite(log.text, 1, log.len, stdout);
        }
        feed_log_fini(&log);
        free(in);
    }
    return rc;
}
