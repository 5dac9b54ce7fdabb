/* Units of the head parser: names, hosts, limits, and heads flush against an unreadable page. What
 * each rule of the wire makes of a request is in tests/cases. */
#include "harness.h"
#include "proto/h1_host.h"
#include "proto/h1_parse.h"
#include "proto/h1_scan.h"

static const struct pp_h1_limits LIMITS = {8192, 32768, 100, 0};
static struct pp_field head_fields[PP_FIELDS_MAX];
static struct pp_head head = {.fields = head_fields, .field_room = PP_FIELDS_MAX};

static int parse_with(const char *text, const struct pp_h1_limits *limits)
{
    struct pp_h1_parser parser;
    size_t len = strlen(text);
    pp_h1_parser_init(&parser);
    return pp_h1_parse_head(&parser, test_guard(text, len), len, limits, &head);
}

static int parse(const char *text)
{
    return parse_with(text, &LIMITS);
}

TEST(names_are_all_found)
{
    for (uint16_t id = 1; id < PP_H1_NAME_COUNT; id++) {
        const char *text = pp_h1_name_text(id);
        size_t len = pp_h1_name_len(id);
        CHECK_EQ(strlen(text), len);
        CHECK_EQ(pp_h1_name_find(test_guard(text, len), len), id);
        for (size_t i = 0; i < len; i++) { /* one byte wrong, one byte less */
            uint8_t *wrong = test_guard(text, len);
            wrong[i] ^= 1;
            uint16_t found = pp_h1_name_find(wrong, len);
            CHECK(found == PP_H1_NAME_OTHER || memcmp(pp_h1_name_text(found), wrong, len) == 0);
            CHECK(found != id);
        }
        CHECK(pp_h1_name_find(test_guard(text, len), len - 1) != id);
    }
    CHECK_BYTES(pp_h1_name_text(PP_H1_NAME_OTHER), 0, "");
    CHECK_EQ(pp_h1_name_len(60000), 0);
    CHECK_EQ(pp_h1_name_find((const uint8_t *)"", 0), PP_H1_NAME_OTHER);
    CHECK_EQ(pp_h1_name_find((const uint8_t *)"x", 1), PP_H1_NAME_OTHER);
}

static bool host(const char *text, enum pp_h1_host_rule rule)
{
    return pp_h1_host_valid(test_guard(text, strlen(text)), strlen(text), rule);
}

TEST(host_accepts)
{
    static const char *const GOOD[] = {"a",
                                       "example.com",
                                       "EXAMPLE.com.",
                                       "a_b",
                                       "a-b.c~d",
                                       "127.0.0.1",
                                       "999.1",
                                       "a%20b",
                                       "a,b",
                                       "!$&'()*+,;=",
                                       "[::]",
                                       "[::1]",
                                       "[1::]",
                                       "[1:2:3:4:5:6:7:8]",
                                       "[1:2:3:4:5:6:7::]",
                                       "[::2:3:4:5:6:7:8]",
                                       "[fe80::a:B]",
                                       "[::ffff:192.0.2.1]",
                                       "[1:2:3:4:5:6:1.2.3.4]",
                                       "[::1.2.3.4]",
                                       "[1::5:1.2.3.4]"};
    char with_port[64];
    for (size_t i = 0; i < sizeof GOOD / sizeof GOOD[0]; i++) {
        CHECK(host(GOOD[i], PP_H1_HOST_NEEDED));
        CHECK(!host(GOOD[i], PP_H1_HOST_PORT_NEEDED));
        size_t len = strlen(GOOD[i]);
        memcpy(with_port, GOOD[i], len);
        memcpy(with_port + len, ":65535", 7);
        CHECK(host(with_port, PP_H1_HOST_NEEDED));
        CHECK(host(with_port, PP_H1_HOST_PORT_NEEDED));
        memcpy(with_port + len, ":", 2);
        CHECK(host(with_port, PP_H1_HOST_NEEDED));
        CHECK(!host(with_port, PP_H1_HOST_PORT_NEEDED));
    }
    CHECK(host("", PP_H1_HOST_MAY_BE_EMPTY));
    CHECK(!host("", PP_H1_HOST_NEEDED));
    CHECK(host(":80", PP_H1_HOST_MAY_BE_EMPTY));
    CHECK(!host(":80", PP_H1_HOST_NEEDED));
}

TEST(host_refuses)
{
    static const char *const BAD[] = {"a b",
                                      "user@a",
                                      "u:p@a",
                                      "a/b",
                                      "a?b",
                                      "a#b",
                                      "a\\b",
                                      "a:b",
                                      "a:80:90",
                                      "a:65536",
                                      "a:123456",
                                      "a:-1",
                                      "a:+80",
                                      "a%",
                                      "a%2",
                                      "a%zz",
                                      "\x80",
                                      "a\tb",
                                      "<a>",
                                      "a\"",
                                      "::1",
                                      "[",
                                      "[]",
                                      "[:]",
                                      "[:::]",
                                      "[1]",
                                      "[::1",
                                      "::1]",
                                      "[::1]x",
                                      "[::1]]",
                                      "[1:2:3:4:5:6:7]",
                                      "[1:2:3:4:5:6:7:8:9]",
                                      "[1::2::3]",
                                      "[12345::]",
                                      "[::g]",
                                      "[1:2:3:4:5:6:7:]",
                                      "[:1::]",
                                      "[1:2:3:4:5:6:7:8::]",
                                      "[::1:2:3:4:5:6:7:8]",
                                      "[::1.2.3]",
                                      "[::1.2.3.4.5]",
                                      "[::256.1.1.1]",
                                      "[::01.2.3.4]",
                                      "[1.2.3.4]",
                                      "[1.2.3.4::]",
                                      "[fe80::1%eth0]",
                                      "[fe80::1%25eth0]",
                                      "[v1.a]",
                                      "[1:2:3:4:5:6:7:1.2.3.4]",
                                      "[::1:2:3:4:5:6:1.2.3.4]",
                                      "[::1.]",
                                      "[::.1]"};
    for (size_t i = 0; i < sizeof BAD / sizeof BAD[0]; i++) {
        if (host(BAD[i], PP_H1_HOST_MAY_BE_EMPTY)) {
            test_fail(__FILE__, __LINE__, "%s was taken for a host", BAD[i]);
        }
    }
}

TEST(parse_spans)
{
    static const char TEXT[] =
        "\r\nPOST /a%20?b HTTP/1.1\r\nHost:\tx\t \r\nX-Long: 1 2\t3\r\n\r\nBODY";
    static uint8_t copy[sizeof TEXT];
    struct pp_h1_parser parser;
    memcpy(copy, TEXT, sizeof TEXT);
    pp_h1_parser_init(&parser);
    CHECK_EQ(pp_h1_parse_head(&parser, copy, sizeof TEXT - 1, &LIMITS, &head), PP_OK);
    CHECK_BYTES(copy + head.head_bytes, 4, "BODY");
    CHECK_BYTES(copy + head.method.off, head.method.len, "POST");
    CHECK_EQ(head.method_id, PP_METHOD_POST);
    CHECK_BYTES(copy + head.target.off, head.target.len, "/a%20?b");
    CHECK_BYTES(copy + head.path.off, head.path.len, "/a%20");
    CHECK_BYTES(copy + head.query.off, head.query.len, "b");
    CHECK(head.path_encoded);
    CHECK_EQ(head.field_count, 2);
    CHECK_EQ(head.fields[0].name_id, PP_H1_NAME_HOST);
    CHECK_BYTES(copy + head.fields[0].value_off, head.fields[0].value_len, "x");
    CHECK_BYTES(copy + head.fields[1].name_off, head.fields[1].name_len, "x-long");
    CHECK_BYTES(copy + head.fields[1].value_off, head.fields[1].value_len, "1 2\t3");
}

TEST(parse_methods)
{
    static const struct {
        const char *text;
        int id;
    } METHODS[] = {
        {"GET", PP_METHOD_GET},       {"HEAD", PP_METHOD_HEAD},      {"POST", PP_METHOD_POST},
        {"PUT", PP_METHOD_PUT},       {"DELETE", PP_METHOD_DELETE},  {"OPTIONS", PP_METHOD_OPTIONS},
        {"PATCH", PP_METHOD_PATCH},   {"TRACE", PP_METHOD_TRACE},    {"get", PP_METHOD_OTHER},
        {"GOT", PP_METHOD_OTHER},     {"PROPFIND", PP_METHOD_OTHER}, {"M-SEARCH", PP_METHOD_OTHER},
        {"OPTIONZ", PP_METHOD_OTHER}, {"x", PP_METHOD_OTHER},
    };
    for (size_t i = 0; i < sizeof METHODS / sizeof METHODS[0]; i++) {
        char text[64] = "";
        size_t len = strlen(METHODS[i].text);
        memcpy(text, METHODS[i].text, len);
        memcpy(text + len, " / HTTP/1.0\r\n\r\n", 16);
        CHECK_EQ(parse(text), PP_OK);
        CHECK_EQ(head.method_id, METHODS[i].id);
    }
}

/* Every prefix of a good head, flush against the unreadable page, asks for more. */
TEST(parse_prefixes_want_more)
{
    static const char TEXT[] = "\r\n\r\nOPTIONS http://h.example:80/a?b HTTP/1.1\r\nHost: h\r\n"
                               "User-Agent: a rather long value, longer than any vector is wide\r\n"
                               "Connection: close, upgrade\r\nUpgrade: x\r\n\r\n";
    struct pp_h1_scan_variants variants = pp_h1_scan_variants();
    for (size_t v = 0; variants.at[v] != NULL; v++) {
        pp_h1_scan = variants.at[v];
        for (size_t len = 0; len < sizeof TEXT - 1; len++) {
            struct pp_h1_parser parser;
            pp_h1_parser_init(&parser);
            uint8_t *at = test_guard(TEXT, len);
            CHECK_EQ(pp_h1_parse_head(&parser, at, len, &LIMITS, &head), PP_AGAIN);
            /* and again, with nothing new */
            CHECK_EQ(pp_h1_parse_head(&parser, at, len, &LIMITS, &head), PP_AGAIN);
        }
        CHECK_EQ(parse(TEXT), PP_OK);
        CHECK(head.upgrade && !head.keep_alive);
    }
    pp_h1_scan_init();
}

TEST(parse_limits_are_exact)
{
    static const char TEXT[] = "GET /123456 HTTP/1.1\r\nHost: a\r\nA: b\r\n\r\n";
    struct pp_h1_limits limits = LIMITS;
    limits.request_line_bytes = 20;
    CHECK_EQ(parse_with(TEXT, &limits), PP_OK);
    limits.request_line_bytes = 19;
    CHECK_EQ(parse_with(TEXT, &limits), PP_ERR_URI_TOO_LONG);
    limits = LIMITS;
    limits.head_bytes = sizeof TEXT - 1;
    CHECK_EQ(parse_with(TEXT, &limits), PP_OK);
    limits.head_bytes = sizeof TEXT - 2;
    CHECK_EQ(parse_with(TEXT, &limits), PP_ERR_HEAD_TOO_LARGE);
    limits = LIMITS;
    limits.field_count = 2;
    CHECK_EQ(parse_with(TEXT, &limits), PP_OK);
    limits.field_count = 1;
    CHECK_EQ(parse_with(TEXT, &limits), PP_ERR_TOO_MANY_FIELDS);
}

TEST(parse_holds_as_many_fields_as_it_says)
{
    static char text[16 * PP_FIELDS_MAX];
    struct pp_h1_limits limits = {8192, 65536, PP_FIELDS_MAX, 0};
    for (int extra = 0; extra < 2; extra++) {
        size_t len = 0;
        memcpy(text, "GET / HTTP/1.0\r\n", len = 16);
        for (int i = 0; i < PP_FIELDS_MAX + extra; i++) {
            memcpy(text + len, "a:b\r\n", 5);
            len += 5;
        }
        memcpy(text + len, "\r\n", 3);
        CHECK_EQ(parse_with(text, &limits), extra ? PP_ERR_TOO_MANY_FIELDS : PP_OK);
    }
    CHECK_EQ(head.field_count, PP_FIELDS_MAX);
}

TEST(parse_refuses_names_that_do_not_fit_their_length)
{
    static char text[70000];
    struct pp_h1_limits limits = {8192, PP_HEAD_BYTES_MAX, 100, 0};
    memset(text, 'a', sizeof text);
    memcpy(text, "GET / HTTP/1.0\r\n", 16);
    memcpy(text + 16 + 65535, ":b\r\n\r\n", 7);
    CHECK_EQ(parse_with(text, &limits), PP_OK);
    CHECK_EQ(head.fields[0].name_len, 65535);
    text[16 + 65535] = 'a';
    memcpy(text + 16 + 65536, ":b\r\n\r\n", 7);
    CHECK_EQ(parse_with(text, &limits), PP_ERR_HEAD_TOO_LARGE);
}

/* A value of tabs and a folded tail are looked at once each: see the bound on steps in the fuzzer.
 */
TEST(parse_tabs_in_values)
{
    CHECK_EQ(parse("GET / HTTP/1.0\r\na: \t1\t2\t3\t4\t5\t6\t7\t8\t9 \t\r\n\r\n"), PP_OK);
    CHECK_EQ(head.fields[0].value_len, 17);
    CHECK_EQ(parse("GET / HTTP/1.0\r\na:\t\t\t\r\n\r\n"), PP_OK);
    CHECK_EQ(head.fields[0].value_len, 0);
}
