/* Units of body framing: in place, flush against an unreadable page, bounded framing overhead. */
#include "harness.h"
#include "proto/h1_body.h"

static struct pp_field head_fields[PP_FIELDS_MAX];
static struct pp_head head = {.fields = head_fields, .field_room = PP_FIELDS_MAX};
static struct pp_h1_body body;
static size_t consumed, produced;

static void begin(bool chunked, uint64_t length, uint64_t limit)
{
    struct pp_h1_limits limits = {8192, 32768, 100, limit};
    head = (struct pp_head){.fields = head_fields, .field_room = PP_FIELDS_MAX};
    head.chunked = chunked;
    head.has_content_length = !chunked;
    head.content_length = length;
    CHECK_EQ(pp_h1_body_init(&body, &head, &limits), PP_OK);
}

static int decode(const char *text)
{
    size_t len = strlen(text);
    uint8_t *at = test_guard(text, len);
    return pp_h1_body_decode(&body, at, len, at, &consumed, &produced);
}

TEST(body_none)
{
    struct pp_h1_limits limits = {8192, 32768, 100, 1};
    head = (struct pp_head){.fields = head_fields, .field_room = PP_FIELDS_MAX};
    CHECK_EQ(pp_h1_body_init(&body, &head, &limits), PP_OK);
    CHECK(body.done && body.kind == PP_H1_BODY_NONE);
    CHECK_EQ(decode("rest"), PP_OK);
    CHECK_EQ(consumed, 0);
    head.has_content_length = true; /* of zero */
    CHECK_EQ(pp_h1_body_init(&body, &head, &limits), PP_OK);
    CHECK(body.done);
}

TEST(body_length)
{
    begin(false, 5, 5);
    CHECK_EQ(decode("ab"), PP_AGAIN);
    CHECK_EQ(produced, 2);
    CHECK_EQ(decode("cdeGET"), PP_OK);
    CHECK_EQ(consumed, 3);
    CHECK_EQ(produced, 3);
    CHECK(body.done);
    CHECK_EQ(body.total, 5);
    CHECK_EQ(decode("GET"), PP_OK);
    CHECK_EQ(consumed, 0);
}

TEST(body_length_over_the_limit)
{
    struct pp_h1_limits limits = {8192, 32768, 100, 4};
    head = (struct pp_head){.fields = head_fields, .field_room = PP_FIELDS_MAX};
    head.has_content_length = true;
    head.content_length = 5;
    CHECK_EQ(pp_h1_body_init(&body, &head, &limits), PP_ERR_BODY_TOO_LARGE);
}

TEST(body_moves_down_to_out)
{
    uint8_t buf[16] = "....hello.......";
    begin(false, 5, 0);
    CHECK_EQ(pp_h1_body_decode(&body, buf + 4, 5, buf + 1, &consumed, &produced), PP_OK);
    CHECK_BYTES(buf + 1, 5, "hello");
}

TEST(body_chunked_in_place)
{
    uint8_t buf[] = "5\r\nhello\r\n6;a=\"b\"\r\n world\r\n000\r\nX: y\r\n\r\nNEXT";
    begin(true, 0, 0);
    CHECK_EQ(pp_h1_body_decode(&body, buf, sizeof buf - 1, buf, &consumed, &produced), PP_OK);
    CHECK_BYTES(buf, produced, "hello world");
    CHECK_BYTES(buf + consumed, 4, "NEXT");
    CHECK_EQ(body.total, 11);
}

TEST(body_chunk_size_bounds)
{
    begin(true, 0, 0);
    CHECK_EQ(decode("0000000000000001\r\n"), PP_AGAIN);
    begin(true, 0, 0);
    CHECK_EQ(decode("00000000000000001\r\n"), PP_ERR_BAD_CHUNK);
    begin(true, 0, 0);
    CHECK_EQ(decode("7fffffffffffffff\r\n"), PP_AGAIN);
    begin(true, 0, 0);
    CHECK_EQ(decode("8000000000000000\r\n"), PP_ERR_BODY_TOO_LARGE);
    begin(true, 0, 0);
    CHECK_EQ(decode("1\r\na\r\n7fffffffffffffff\r\n"), PP_ERR_BODY_TOO_LARGE);
    CHECK_EQ(produced, 1);
    begin(true, 0, 3);
    CHECK_EQ(decode("2\r\nab\r\n2\r\n"), PP_ERR_BODY_TOO_LARGE);
    CHECK_EQ(produced, 2);
    begin(true, 0, 3);
    CHECK_EQ(decode("2\r\nab\r\n1\r\nc\r\n0\r\n\r\n"), PP_OK);
}

TEST(body_extension_bound)
{
    static char text[PP_CHUNK_EXT_BYTES_MAX + 64];
    for (int extra = 0; extra < 2; extra++) {
        size_t n = 0;
        text[n++] = '1';
        text[n++] = ';';
        memset(text + n, 'x', PP_CHUNK_EXT_BYTES_MAX - 1 + (size_t)extra);
        n += PP_CHUNK_EXT_BYTES_MAX - 1 + (size_t)extra;
        memcpy(text + n, "\r\n", 3);
        begin(true, 0, 0);
        CHECK_EQ(decode(text), extra ? PP_ERR_BAD_CHUNK : PP_AGAIN);
    }
}

/* One byte a chunk is slow but honest; a long extension on each byte is not. */
TEST(body_framing_overhead_bound)
{
    static char chunk[600];
    begin(true, 0, 0);
    for (int i = 0; i < 100000; i++) {
        CHECK_EQ(decode("1\r\nx\r\n"), PP_AGAIN);
    }
    CHECK_EQ(body.overhead, 0);
    memcpy(chunk, "1;", 2);
    memset(chunk + 2, 'x', 500);
    memcpy(chunk + 502, "\r\nx\r\n", 6);
    int rc = PP_AGAIN, count = 0;
    for (; rc == PP_AGAIN && count < 1000; count++) {
        rc = decode(chunk);
    }
    CHECK_EQ(rc, PP_ERR_BAD_CHUNK);
    CHECK(count > 100 && count < 200);
}

TEST(body_trailer_bound)
{
    static char text[PP_TRAILER_BYTES_MAX + 64];
    for (int extra = 0; extra < 2; extra++) {
        size_t n = 0;
        memcpy(text, "0\r\na:", 5);
        n = 5 + PP_TRAILER_BYTES_MAX - 6 + (size_t)extra; /* "a:" CRLF CRLF */
        memset(text + 5, 'x', n - 5);
        memcpy(text + n, "\r\n\r\n", 5);
        begin(true, 0, 0);
        CHECK_EQ(decode(text), extra ? PP_ERR_BAD_TRAILER : PP_OK);
    }
}
