/* Units of the class scans: every variant equal to the definition, nothing read outside. */
#include "harness.h"
#include "proto/h1_class.h"
#include "proto/h1_scan.h"

typedef size_t scan_function(const uint8_t *data, size_t len);

static bool in_token(uint8_t c)
{
    return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') ||
           (c != 0 && strchr("!#$%&'*+-.^_`|~", c) != NULL);
}

static bool in_value(uint8_t c)
{
    return c == '\t' || (c >= 0x20 && c != 0x7f);
}

static bool in_target(uint8_t c)
{
    return c > 0x20 && c < 0x7f && c != '#';
}

static size_t expected(bool (*in)(uint8_t), const uint8_t *data, size_t len)
{
    size_t i = 0;
    while (i < len && in(data[i])) {
        i++;
    }
    return i;
}

struct pair {
    bool (*in)(uint8_t);
    scan_function *scan;
};

static void for_each(void (*check)(struct pair pair))
{
    struct pp_h1_scan_variants variants = pp_h1_scan_variants();
    for (size_t i = 0; variants.at[i] != NULL; i++) {
        check((struct pair){in_token, variants.at[i]->token});
        check((struct pair){in_value, variants.at[i]->value});
        check((struct pair){in_target, variants.at[i]->target});
    }
}

TEST(scan_starts_scalar_and_takes_the_best)
{
    struct pp_h1_scan_variants variants = pp_h1_scan_variants();
    CHECK_BYTES(variants.at[0]->name, strlen(variants.at[0]->name), "scalar");
    CHECK(pp_h1_scan == variants.at[0]);
    pp_h1_scan_init();
    pp_h1_scan_init();
    size_t last = 0;
    while (variants.at[last + 1] != NULL) {
        last++;
    }
    CHECK(pp_h1_scan == variants.at[last]);
#if defined(__aarch64__)
    CHECK_BYTES(pp_h1_scan->name, strlen(pp_h1_scan->name), "neon");
#endif
}

TEST(scan_classes_agree_with_their_definition)
{
    for (unsigned c = 0; c < 256; c++) {
        uint8_t byte = (uint8_t)c;
        CHECK_EQ(pp_h1_is(byte, PP_H1_TCHAR), in_token(byte));
        CHECK_EQ(pp_h1_is(byte, PP_H1_VALUE), in_value(byte));
        CHECK_EQ(pp_h1_is(byte, PP_H1_TARGET), in_target(byte));
        uint8_t lower = byte >= 'A' && byte <= 'Z' ? (uint8_t)(byte + 32) : byte;
        CHECK_EQ(pp_h1_lower[byte], in_token(byte) ? lower : 0);
    }
}

/* Every byte value at every place of every length up to three widest vectors, the rest good. */
static void check_each_byte_everywhere(struct pair pair)
{
    uint8_t data[100];
    for (size_t len = 0; len <= sizeof data; len++) {
        memset(data, 'x', sizeof data);
        uint8_t *at = test_guard(data, len);
        CHECK_EQ(pair.scan(at, len), len);
        for (size_t place = 0; place < len; place++) {
            for (unsigned c = 0; c < 256; c++) {
                at[place] = (uint8_t)c;
                CHECK_EQ(pair.scan(at, len), pair.in((uint8_t)c) ? len : place);
            }
            at[place] = 'x';
        }
    }
}

TEST(scan_each_byte_everywhere)
{
    for_each(check_each_byte_everywhere);
}

static void check_random(struct pair pair)
{
    uint8_t data[600];
    for (int round = 0; round < 20000; round++) {
        size_t len = test_random_below(sizeof data + 1);
        uint64_t good = 1 + test_random_below(400); /* one byte in so many is any byte */
        for (size_t i = 0; i < len; i++) {
            data[i] = test_random_below(good) == 0 ? (uint8_t)test_random() : 'a';
        }
        uint8_t *at = test_guard(data, len);
        CHECK_EQ(pair.scan(at, len), expected(pair.in, at, len));
    }
}

TEST(scan_random_lengths)
{
    for_each(check_random);
}

TEST(scan_words_find_the_first_byte)
{
    for (int round = 0; round < 200000; round++) {
        uint8_t data[8];
        for (size_t i = 0; i < 8; i++) {
            data[i] = (uint8_t)test_random();
        }
        uint64_t x = pp_h1_load8(data);
        uint64_t masks[3] = {pp_h1_mask_zero(x), pp_h1_mask_below(x, 0x20),
                             pp_h1_mask_equal(x, 0x7f)};
        for (int kind = 0; kind < 3; kind++) {
            size_t i = 0;
            while (i < 8 && !(kind == 0   ? data[i] == 0
                              : kind == 1 ? data[i] < 0x20
                                          : data[i] == 0x7f)) {
                i++;
            }
#if PP_H1_HAVE_WORDS
            CHECK_EQ(masks[kind] == 0 ? 8 : __builtin_ctzll(masks[kind]) / 8, i);
#endif
        }
    }
}
