/* What is kept in a temporary file comes back, whatever else is kept there and fails meanwhile. */
#include <stdlib.h>

#include "base/mem.h"
#include "harness.h"
#include "net/spool.h"

#define KEPT 6
#define ROOM (12 * (uint64_t)PP_SPOOL_PART)

/* Byte `at` of what was kept by `seed`. */
static uint8_t byte_of(unsigned seed, uint64_t at)
{
    return (uint8_t)((at * 2654435761u + seed * 40503u) >> 13);
}

static int append(struct pp_spool *spool, unsigned seed, size_t len)
{
    uint8_t *data = malloc(len);
    CHECK(data != NULL);
    for (size_t i = 0; i < len; i++) {
        data[i] = byte_of(seed, spool->len + i);
    }
    int rc = pp_spool_append(spool, data, len);
    free(data);
    return rc;
}

static void compare(const struct pp_spool *spool, unsigned seed)
{
    static uint8_t buf[300000];
    for (uint64_t at = 0; at < spool->len;) {
        size_t got, max = (size_t)test_random_below(sizeof buf) + 1;
        CHECK_EQ(pp_spool_read(spool, at, buf, max, &got), PP_OK);
        CHECK(got > 0 && got <= max && got <= spool->len - at);
        for (size_t i = 0; i < got; i++) {
            CHECK_EQ(buf[i], byte_of(seed, at + i));
        }
        at += got;
    }
}

TEST(net_spool_keeps_what_it_is_given)
{
    uint64_t blocks = pp_mem_blocks();
    struct pp_spool_file *file = pp_spool_file_new("/tmp", ROOM + 5);
    struct pp_spool *kept[KEPT] = {NULL};
    unsigned seeds[KEPT] = {0}, full = 0;
    CHECK(file != NULL);
    CHECK_EQ(pp_spool_file_room(file), ROOM);
    for (unsigned step = 1; step <= 400; step++) {
        unsigned i = (unsigned)test_random_below(KEPT);
        if (kept[i] == NULL) {
            kept[i] = pp_spool_new(file);
            CHECK(kept[i] != NULL);
            seeds[i] = step;
        }
        uint64_t before = kept[i]->len;
        size_t len = (size_t)test_random_below(PP_SPOOL_PART + 10) + 1;
        int rc = append(kept[i], seeds[i], len);
        full += rc != PP_OK;
        CHECK_EQ(kept[i]->len, rc == PP_OK ? before + len : before);
        if (rc != PP_OK || test_random_below(8) == 0) {
            compare(kept[i], seeds[i]);
            pp_spool_free(kept[i]);
            kept[i] = NULL;
        }
    }
    CHECK(full > 0);
    for (unsigned i = 0; i < KEPT; i++) {
        if (kept[i] != NULL) {
            compare(kept[i], seeds[i]);
            pp_spool_free(kept[i]);
        }
    }
    pp_spool_file_free(file);
    CHECK_EQ(pp_mem_blocks(), blocks);
}

/* The whole of it, in which some allocation fails; true if none did. */
static bool try_all(void)
{
    struct pp_spool_file *file = pp_spool_file_new("/tmp", 40 * (uint64_t)PP_SPOOL_PART);
    if (file == NULL) {
        return false;
    }
    struct pp_spool *spool = pp_spool_new(file);
    bool all = spool != NULL;
    for (int i = 0; i < 36 && spool != NULL; i++) { /* past the first growth of both lists */
        all = append(spool, 1, PP_SPOOL_PART) == PP_OK && all;
    }
    if (spool != NULL) {
        compare(spool, 1);
        pp_spool_free(spool);
    }
    pp_spool_file_free(file);
    return all;
}

TEST(net_spool_without_memory)
{
    uint64_t blocks = pp_mem_blocks();
    bool all = false;
    for (uint64_t nth = 1; nth < 20 && !all; nth++) {
        pp_mem_fail_at(nth);
        all = try_all();
        CHECK_EQ(pp_mem_blocks(), blocks);
    }
    pp_mem_fail_at(0);
    CHECK(all);
}

TEST(net_spool_where_no_file_can_be_made)
{
    struct pp_spool_file *file = pp_spool_file_new("/proc/self", ROOM);
    CHECK(file != NULL);
    CHECK(pp_spool_new(file) == NULL);
    pp_spool_file_free(file);
}
