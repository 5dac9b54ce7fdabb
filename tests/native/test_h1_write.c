/* Units of response heads: what is written, what is refused, what is dropped. */
#include <stdio.h>

#include "harness.h"
#include "proto/h1_class.h"
#include "proto/h1_names.h"
#include "proto/h1_write.h"

static uint8_t out[4096];
static size_t written;
static struct pp_h1_framed framed;
static struct pp_out_field fields[8];

static struct pp_out_field field(const char *name, const char *value)
{
    return (struct pp_out_field){(const uint8_t *)name, (const uint8_t *)value, strlen(name),
                                 strlen(value)};
}

static struct pp_response response(int status, const char *name, const char *value)
{
    fields[0] = field(name, value);
    return (struct pp_response){.status = status,
                                .fields = fields,
                                .field_count = *name != '\0',
                                .complete = true,
                                .request_minor = 1,
                                .keep_alive = true};
}

/* Writes into exactly the bound, flush against an unreadable page. */
static int write_head(const struct pp_response *r)
{
    size_t bound = pp_h1_write_bound(r);
    struct pp_response counted = *r;
    for (size_t i = 0; i < r->field_count; i++) {
        counted.field_bytes += pp_out_field_bytes(&r->fields[i]);
    }
    CHECK_EQ(pp_h1_write_bound(&counted), bound);
    CHECK(bound <= sizeof out);
    uint8_t *at = test_guard(out, bound);
    int rc = pp_h1_write_head(r, at, bound, &written, &framed);
    if (rc == PP_OK) {
        memcpy(out, at, written);
    }
    return rc;
}

static void check(const struct pp_response *r, const char *text)
{
    CHECK_EQ(write_head(r), PP_OK);
    CHECK_BYTES(out, written, text);
}

TEST(write_single_shot)
{
    struct pp_response r = response(200, "content-type", "text/plain");
    r.body_bytes = 12;
    r.date = "Sun, 06 Nov 1994 08:49:37 GMT";
    r.server = true;
    check(&r, "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 12\r\n"
              "date: Sun, 06 Nov 1994 08:49:37 GMT\r\nserver: ppserver\r\n\r\n");
    CHECK_EQ(framed.framing, PP_H1_FRAME_LENGTH);
    CHECK_EQ(framed.content_length, 12);
    CHECK(framed.keep_alive);
}

TEST(write_streams)
{
    struct pp_response r = response(200, "", "");
    r.complete = false;
    check(&r, "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
    CHECK_EQ(framed.framing, PP_H1_FRAME_CHUNKED);
    r.request_minor = 0;
    check(&r, "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n");
    CHECK_EQ(framed.framing, PP_H1_FRAME_CLOSE);
    CHECK(!framed.keep_alive);
    r = response(200, "Content-Length", "7");
    r.complete = false;
    check(&r, "HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\n");
    CHECK_EQ(framed.framing, PP_H1_FRAME_LENGTH);
    CHECK_EQ(framed.content_length, 7);
}

TEST(write_keep_alive_of_1_0_is_said)
{
    struct pp_response r = response(200, "", "");
    r.request_minor = 0;
    check(&r, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: keep-alive\r\n\r\n");
    r.keep_alive = false;
    check(&r, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
}

TEST(write_no_body_statuses)
{
    struct pp_response r = response(204, "content-length", "5");
    check(&r, "HTTP/1.1 204 No Content\r\n\r\n");
    CHECK_EQ(framed.framing, PP_H1_FRAME_NONE);
    r.complete = false;
    check(&r, "HTTP/1.1 204 No Content\r\n\r\n");
    r = response(304, "content-length", "5");
    check(&r, "HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\n");
    CHECK_EQ(framed.framing, PP_H1_FRAME_NONE);
    r = response(304, "", "");
    check(&r, "HTTP/1.1 304 Not Modified\r\n\r\n");
}

TEST(write_to_head_requests)
{
    struct pp_response r = response(200, "content-length", "5");
    r.request_head = true;
    check(&r, "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n");
    CHECK_EQ(framed.framing, PP_H1_FRAME_NONE);
    r = response(200, "", "");
    r.request_head = true;
    check(&r, "HTTP/1.1 200 OK\r\n\r\n");
    r.body_bytes = 3; /* a body that is not sent still tells the length */
    check(&r, "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n");
    r.complete = false;
    check(&r, "HTTP/1.1 200 OK\r\n\r\n");
    CHECK_EQ(framed.framing, PP_H1_FRAME_NONE);
}

TEST(write_drops_hop_by_hop)
{
    static const char *const NAMES[] = {"connection",       "keep-alive",        "Upgrade",
                                        "proxy-connection", "Transfer-Encoding", "Keep-Alive"};
    for (size_t i = 0; i < sizeof NAMES / sizeof NAMES[0]; i++) {
        struct pp_response r = response(200, NAMES[i], "x");
        check(&r, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
    }
}

TEST(is_word_of_every_length)
{
    static const char *const WORDS[] = {
        "te",       "date",       "close",          "upgrade",          "http://",
        "trailers", "connection", "content-length", "proxy-connection", "transfer-encoding"};
    for (size_t w = 0; w < sizeof WORDS / sizeof WORDS[0]; w++) {
        size_t len = strlen(WORDS[w]);
        for (size_t at = 0; at < len; at++) {
            for (int c = 0x20; c < 256; c++) {
                uint8_t data[32];
                memcpy(data, WORDS[w], len);
                data[at] = (uint8_t)c;
                bool letter = data[at] >= 'A' && data[at] <= 'Z';
                bool same = (letter ? c + 32 : c) == WORDS[w][at];
                CHECK_EQ(pp_h1_is_word(data, len, WORDS[w], len), same);
            }
        }
        CHECK(!pp_h1_is_word((const uint8_t *)WORDS[w], len - 1, WORDS[w], len));
    }
}

TEST(hop_by_hop_names)
{
    static const char *const NAMES[] = {
#define HOP_NAME(ident, text) [PP_H1_HOP_##ident] = text,
        PP_H1_HOPS(HOP_NAME)
#undef HOP_NAME
    };
    static const char *const OTHERS[] = {"",
                                         "t",
                                         "tf",
                                         "trailer",
                                         "upgrades",
                                         "keep_alive",
                                         "date",
                                         "connectioN ",
                                         "transfer-encodings",
                                         "x-upgrade",
                                         "content-type",
                                         "proxy-authentication"};
    for (size_t i = 1; i < sizeof NAMES / sizeof NAMES[0]; i++) {
        uint8_t upper[32];
        size_t len = strlen(NAMES[i]);
        for (size_t k = 0; k < len; k++) {
            upper[k] = (uint8_t)(NAMES[i][k] == '-' ? '-' : NAMES[i][k] - 32);
        }
        CHECK_EQ(pp_h1_hop_of((const uint8_t *)NAMES[i], len), i);
        CHECK_EQ(pp_h1_hop_of(upper, len), i);
    }
    for (size_t i = 0; i < sizeof OTHERS / sizeof OTHERS[0]; i++) {
        CHECK_EQ(pp_h1_hop_of((const uint8_t *)OTHERS[i], strlen(OTHERS[i])), PP_H1_HOP_NONE);
    }
}

TEST(write_keeps_what_an_application_says_as_a_proxy)
{
    static const char *const NAMES[] = {"proxy-authenticate", "Proxy-Authorization", "te",
                                        "trailers"};
    for (size_t i = 0; i < sizeof NAMES / sizeof NAMES[0]; i++) {
        struct pp_response r = response(200, NAMES[i], "x");
        char expected[128];
        (void)snprintf(expected, sizeof expected,
                       "HTTP/1.1 200 OK\r\n%s: x\r\ncontent-length: 0\r\n\r\n", NAMES[i]);
        check(&r, expected);
    }
}

TEST(write_upgrade_of_426)
{
    struct pp_response r = response(426, "Upgrade", "websocket");
    check(&r, "HTTP/1.1 426 Upgrade Required\r\nUpgrade: websocket\r\ncontent-length: 0\r\n"
              "connection: upgrade\r\n\r\n");
    r.keep_alive = false;
    check(&r, "HTTP/1.1 426 Upgrade Required\r\nUpgrade: websocket\r\ncontent-length: 0\r\n"
              "connection: close, upgrade\r\n\r\n");
    r = response(426, "x", "y");
    check(&r, "HTTP/1.1 426 Upgrade Required\r\nx: y\r\ncontent-length: 0\r\n\r\n");
}

TEST(write_honours_close)
{
    static const char *const VALUES[] = {"close", "Close", "x, close", "\"\",close ;"};
    for (size_t i = 0; i < sizeof VALUES / sizeof VALUES[0]; i++) {
        struct pp_response r = response(200, "Connection", VALUES[i]);
        check(&r, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        CHECK(!framed.keep_alive);
    }
    struct pp_response r = response(200, "connection", "closed, enclose");
    CHECK_EQ(write_head(&r), PP_OK);
    CHECK(framed.keep_alive);
}

TEST(write_extra_fields_and_ours_yield)
{
    struct pp_out_field extra[] = {field("X-A", "1"), field("server", "mine"), field("x-b", "2")};
    struct pp_response r = response(200, "x-a", "app");
    r.extra_fields = extra;
    r.extra_count = 3;
    r.server = true;
    check(&r, "HTTP/1.1 200 OK\r\nx-a: app\r\nserver: mine\r\nx-b: 2\r\ncontent-length: 0\r\n\r\n");
    fields[0] = field("DATE", "now");
    r.extra_count = 0;
    r.date = "Sun, 06 Nov 1994 08:49:37 GMT";
    r.server = false;
    check(&r, "HTTP/1.1 200 OK\r\nDATE: now\r\ncontent-length: 0\r\n\r\n");
}

TEST(write_words_in_any_case)
{
    static const char *const WORDS[] = {"date", "upgrade", "keep-alive", "content-length",
                                        "transfer-encoding"};
    for (size_t w = 0; w < sizeof WORDS / sizeof WORDS[0]; w++) {
        size_t len = strlen(WORDS[w]);
        for (size_t i = 0; i < len * 256; i++) {
            uint8_t name[20];
            memcpy(name, WORDS[w], len);
            name[i / 256] = (uint8_t)i;
            uint8_t lower = (uint8_t)i >= 'A' && (uint8_t)i <= 'Z' ? (uint8_t)i | 0x20 : (uint8_t)i;
            CHECK_EQ(pp_h1_is_word(name, len, WORDS[w], len), lower == (uint8_t)WORDS[w][i / 256]);
            CHECK(!pp_h1_is_word(name, len - 1, WORDS[w], len));
        }
    }
}

TEST(write_reasons)
{
    struct pp_response r = response(299, "", "");
    check(&r, "HTTP/1.1 299 \r\ncontent-length: 0\r\n\r\n");
    r.reason = (const uint8_t *)"My \xe4 Reason";
    r.reason_len = 11;
    check(&r, "HTTP/1.1 299 My \xe4 Reason\r\ncontent-length: 0\r\n\r\n");
    r.reason = (const uint8_t *)"a\r\nb";
    r.reason_len = 4;
    CHECK_EQ(write_head(&r), PP_ERR_APP_BAD_REASON);
    CHECK_BYTES(pp_h1_reason(404), strlen(pp_h1_reason(404)), "Not Found");
    CHECK_BYTES(pp_h1_reason(599), 0, "");
}

TEST(write_refuses_statuses)
{
    static const int BAD[] = {-200, 0, 99, 100, 101, 199, 1000, 20000};
    for (size_t i = 0; i < sizeof BAD / sizeof BAD[0]; i++) {
        struct pp_response r = response(BAD[i], "", "");
        CHECK_EQ(write_head(&r), PP_ERR_APP_BAD_STATUS);
    }
    struct pp_response r = response(999, "", "");
    CHECK_EQ(write_head(&r), PP_OK);
}

TEST(write_refuses_every_bad_byte)
{
    uint8_t room[40]; /* of which texts take the end, flush against what a sanitizer guards */
    for (size_t i = 0; i < sizeof room * sizeof room * 256; i++) {
        size_t len = 1 + i / 256 / sizeof room, place = i / 256 % sizeof room;
        uint8_t c = (uint8_t)i, *text = room + sizeof room - len;
        if (place >= len) {
            continue;
        }
        memset(text, place % 2 ? 'z' : 'A', len);
        text[place] = c;
        struct pp_response r = response(200, "x", "y");
        fields[0].name = text;
        fields[0].name_len = len;
        CHECK_EQ(write_head(&r), pp_h1_is(c, PP_H1_TCHAR) ? PP_OK : PP_ERR_APP_BAD_HEADER_NAME);
        fields[0] = field("x", "y");
        fields[0].value = text;
        fields[0].value_len = len;
        CHECK_EQ(write_head(&r), pp_h1_is(c, PP_H1_VALUE) ? PP_OK : PP_ERR_APP_BAD_HEADER_VALUE);
    }
    struct pp_response r = response(200, "x", "");
    fields[0].name_len = 0;
    CHECK_EQ(write_head(&r), PP_ERR_APP_BAD_HEADER_NAME);
    fields[0].name_len = 1;
    check(&r, "HTTP/1.1 200 OK\r\nx: \r\ncontent-length: 0\r\n\r\n");
}

TEST(write_content_length_of_the_application)
{
    static const char *const BAD[] = {"",
                                      " 5",
                                      "5 ",
                                      "+5",
                                      "-5",
                                      "0x5",
                                      "5,5",
                                      "5.0",
                                      "9223372036854775808",
                                      "99999999999999999999"};
    for (size_t i = 0; i < sizeof BAD / sizeof BAD[0]; i++) {
        struct pp_response r = response(200, "content-length", BAD[i]);
        CHECK_EQ(write_head(&r), PP_ERR_APP_BAD_CONTENT_LENGTH);
    }
    struct pp_response r = response(200, "content-length", "5");
    fields[1] = field("Content-Length", "5");
    r.field_count = 2;
    r.body_bytes = 5;
    CHECK_EQ(write_head(&r), PP_ERR_APP_BAD_CONTENT_LENGTH);
    r.field_count = 1;
    CHECK_EQ(write_head(&r), PP_OK);
    r.body_bytes = 6;
    CHECK_EQ(write_head(&r), PP_ERR_APP_BODY_TOO_LONG);
    r.body_bytes = 4;
    CHECK_EQ(write_head(&r), PP_ERR_APP_BODY_TOO_SHORT);
    r.complete = false; /* of a first piece it is known only when it is too long */
    CHECK_EQ(write_head(&r), PP_OK);
    r.body_bytes = 6;
    CHECK_EQ(write_head(&r), PP_ERR_APP_BODY_TOO_LONG);
    r.request_head = true;
    CHECK_EQ(write_head(&r), PP_OK);
    r = response(200, "content-length", "9223372036854775807");
    r.complete = false;
    CHECK_EQ(write_head(&r), PP_OK);
}

TEST(write_informational)
{
    fields[0] = field("link", "</a.css>; rel=preload");
    fields[1] = field("connection", "close");
    fields[2] = field("content-length", "3");
    CHECK_EQ(pp_h1_write_informational(103, fields, 3, out, sizeof out, &written), PP_OK);
    CHECK_BYTES(out, written, "HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\n\r\n");
    CHECK_EQ(pp_h1_write_informational(100, NULL, 0, out, sizeof out, &written), PP_OK);
    CHECK_BYTES(out, written, "HTTP/1.1 100 Continue\r\n\r\n");
    CHECK_EQ(pp_h1_write_informational(101, NULL, 0, out, sizeof out, &written),
             PP_ERR_APP_BAD_STATUS);
    CHECK_EQ(pp_h1_write_informational(200, NULL, 0, out, sizeof out, &written),
             PP_ERR_APP_BAD_STATUS);
    fields[0] = field("a b", "");
    CHECK_EQ(pp_h1_write_informational(103, fields, 1, out, sizeof out, &written),
             PP_ERR_APP_BAD_HEADER_NAME);
    fields[0] = field("a", "b"); /* the room that the header asks for is enough */
    CHECK_EQ(pp_h1_write_informational(103, fields, 1, test_guard(out, 70), 70, &written), PP_OK);
    CHECK_EQ(pp_h1_write_informational(199, NULL, 0, test_guard(out, 64), 64, &written), PP_OK);
}

TEST(write_chunk_prefixes)
{
    static const struct {
        uint64_t len;
        const char *text;
    } PREFIXES[] = {{1, "1\r\n"},         {15, "f\r\n"},
                    {16, "10\r\n"},       {255, "ff\r\n"},
                    {256, "100\r\n"},     {0xabcdef, "abcdef\r\n"},
                    {65536, "10000\r\n"}, {UINT64_MAX, "ffffffffffffffff\r\n"}};
    for (size_t i = 0; i < sizeof PREFIXES / sizeof PREFIXES[0]; i++) {
        uint8_t *at = test_guard(out, 18);
        written = pp_h1_write_chunk_prefix(PREFIXES[i].len, at);
        CHECK_BYTES(at, written, PREFIXES[i].text);
    }
}

TEST(write_errors)
{
    for (int i = 0; i < PP_ERR_COUNT; i++) {
        int status = pp_err_status(pp_err_at(i));
        if (status != 0) {
            CHECK(*pp_h1_reason(status) != '\0');
            CHECK(pp_h1_write_error(status, false, "Sun, 06 Nov 1994 08:49:37 GMT", true, out,
                                    512) > 0);
        }
    }
    written = pp_h1_write_error(400, false, NULL, true, out, sizeof out);
    CHECK_BYTES(out, written,
                "HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain; charset=utf-8\r\n"
                "content-length: 11\r\nserver: ppserver\r\nconnection: close\r\n\r\nBad Request");
    written = pp_h1_write_error(400, true, NULL, false, out, sizeof out);
    CHECK_BYTES(out, written,
                "HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain; charset=utf-8\r\n"
                "content-length: 11\r\nconnection: close\r\n\r\n");
}

TEST(write_dates)
{
    static const struct {
        int64_t seconds;
        const char *text;
    } DATES[] = {{0, "Thu, 01 Jan 1970 00:00:00 GMT"},
                 {784111777, "Sun, 06 Nov 1994 08:49:37 GMT"},
                 {951782400, "Tue, 29 Feb 2000 00:00:00 GMT"},
                 {951868799, "Tue, 29 Feb 2000 23:59:59 GMT"},
                 {1709164799, "Wed, 28 Feb 2024 23:59:59 GMT"},
                 {1735689599, "Tue, 31 Dec 2024 23:59:59 GMT"},
                 {4107542400, "Mon, 01 Mar 2100 00:00:00 GMT"},
                 {-1, "Wed, 31 Dec 1969 23:59:59 GMT"},
                 {253402300799, "Fri, 31 Dec 9999 23:59:59 GMT"}};
    for (size_t i = 0; i < sizeof DATES / sizeof DATES[0]; i++) {
        char date[30];
        pp_h1_write_date(DATES[i].seconds, date);
        CHECK_EQ(date[29], 0);
        CHECK_BYTES(date, 29, DATES[i].text);
    }
}
