/* Units of base/: error table, counted memory and pools, timer wheel, histogram, text. */
#include <pthread.h>
#include <stdio.h>

#include "base/err.h"
#include "base/hist.h"
#include "base/limits.h"
#include "base/mem.h"
#include "base/text.h"
#include "base/timer.h"
#include "harness.h"

/* ---- err ---- */

TEST(err_names_are_the_table_in_lower_case)
{
    static const char *const UPPER[] = {
#define UPPER_NAME(name, status, class_, text) #name,
        PP_ERR_TABLE(UPPER_NAME)
#undef UPPER_NAME
    };
    for (int i = 0; i < PP_ERR_COUNT; i++) {
        const char *name = pp_err_name(pp_err_at(i));
        CHECK_EQ(strlen(name), strlen(UPPER[i]));
        for (size_t k = 0; name[k] != '\0'; k++) {
            CHECK_EQ(name[k] >= 'a' && name[k] <= 'z' ? name[k] - 32 : name[k], UPPER[i][k]);
        }
        CHECK_EQ(pp_err_index(pp_err_at(i)), i);
        CHECK(pp_err_at(i) < 0);
        CHECK(pp_err_text(pp_err_at(i))[0] != '\0');
    }
}

TEST(err_statuses)
{
    CHECK_EQ(pp_err_status(PP_ERR_BAD_REQUEST_LINE), 400);
    CHECK_EQ(pp_err_status(PP_ERR_BAD_VERSION), 505);
    CHECK_EQ(pp_err_status(PP_ERR_URI_TOO_LONG), 414);
    CHECK_EQ(pp_err_status(PP_ERR_HEAD_TOO_LARGE), 431);
    CHECK_EQ(pp_err_status(PP_ERR_BODY_TOO_LARGE), 413);
    CHECK_EQ(pp_err_status(PP_ERR_APP_FAILED), 500);
    CHECK_EQ(pp_err_status(PP_ERR_DISCONNECTED), 0);
}

TEST(err_answers_for_what_is_not_in_the_table)
{
    static const int OTHERS[] = {PP_OK, PP_AGAIN, -1, -1000000, PP_ERR_BASE_, PP_ERR_END_};
    for (size_t i = 0; i < sizeof OTHERS / sizeof OTHERS[0]; i++) {
        CHECK_EQ(pp_err_index(OTHERS[i]), -1);
        CHECK_EQ(pp_err_status(OTHERS[i]), 0);
        CHECK(pp_err_name(OTHERS[i]) == NULL);
        CHECK(pp_err_text(OTHERS[i]) != NULL);
    }
}

/* ---- text ---- */

static bool decimal(const char *text, uint64_t *value)
{
    return pp_text_decimal((const uint8_t *)text, strlen(text), value);
}

TEST(text_decimal)
{
    static const char *const WRONG[] = {"",
                                        "x",
                                        "+1",
                                        "-1",
                                        " 1",
                                        "1 ",
                                        "1.0",
                                        "0x1",
                                        "1,2",
                                        "1:0",
                                        "1/0",
                                        "\xb2",
                                        "9223372036854775808",
                                        "9999999999999999999",
                                        "18446744073709551616",
                                        "100000000000000000000000000000000000000000"};
    uint64_t value = 0;
    CHECK(decimal("0", &value) && value == 0);
    CHECK(decimal("42", &value) && value == 42);
    CHECK(decimal("00000000000000000000000000000042", &value) && value == 42);
    CHECK(decimal("9223372036854775807", &value) && value == INT64_MAX);
    for (size_t i = 0; i < sizeof WRONG / sizeof WRONG[0]; i++) {
        value = 7;
        CHECK(!decimal(WRONG[i], &value));
        CHECK_EQ(value, 7);
    }
    CHECK(pp_text_decimal((const uint8_t *)"123", 2, &value) && value == 12);
}

TEST(text_put_decimal)
{
    static const uint64_t VALUES[] = {0, 7, 10, 99, 100, 65535, INT64_MAX, UINT64_MAX};
    for (size_t i = 0; i < sizeof VALUES / sizeof VALUES[0]; i++) {
        uint8_t out[PP_TEXT_DECIMAL_MAX];
        char expected[32];
        int len = snprintf(expected, sizeof expected, "%llu", (unsigned long long)VALUES[i]);
        CHECK_EQ(pp_text_put_decimal(out, VALUES[i]), len);
        CHECK(memcmp(out, expected, (size_t)len) == 0);
    }
}

TEST(text_hex_value)
{
    static const char DIGITS[] = "0123456789abcdefABCDEF";
    int digits = 0;
    for (int c = 0; c < 256; c++) {
        const char *at = c != 0 ? strchr(DIGITS, c) : NULL;
        int value = at == NULL         ? -1
                    : at - DIGITS < 16 ? (int)(at - DIGITS)
                                       : (int)(at - DIGITS) - 6;
        CHECK_EQ(pp_text_hex_value((uint8_t)c), value);
        digits += value >= 0;
    }
    CHECK_EQ(digits, 22);
}

TEST(text_unescape)
{
    static const struct {
        const char *text, *expected;
    } CASES[] = {
        {"", ""},           {"/a", "/a"},         {"%2F", "/"},          {"a%20b%2fc", "a b/c"},
        {"%", "%"},         {"%4", "%4"},         {"%41", "A"},          {"%4g%g4", "%4g%g4"},
        {"%%41", "%A"},     {"%2541", "%41"},     {"%41%", "A%"},        {"%c3%A4", "\xc3\xa4"},
        {"100%25", "100%"}, {"%4\xff", "%4\xff"}, {"%e4%zz", "\xe4%zz"},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
        uint8_t buf[32];
        size_t len = strlen(CASES[i].text);
        memcpy(buf, CASES[i].text, len);
        size_t n = pp_text_unescape(buf, len, buf); /* in place */
        CHECK_EQ(n, strlen(CASES[i].expected));
        CHECK(memcmp(buf, CASES[i].expected, n) == 0);
    }
    uint8_t out[2] = {0, 'x'};
    CHECK_EQ(pp_text_unescape((const uint8_t *)"%00", 3, out), 1);
    CHECK(out[0] == 0 && out[1] == 'x');
}

/* ---- mem ---- */

TEST(mem_counts)
{
    uint64_t bytes = pp_mem_bytes(), blocks = pp_mem_blocks();
    void *a = pp_mem_alloc(100);
    uint8_t *b = pp_mem_zalloc(50);
    CHECK(a != NULL && b != NULL);
    CHECK(b[0] == 0 && b[49] == 0);
    CHECK_EQ(pp_mem_bytes() - bytes, 150);
    CHECK_EQ(pp_mem_blocks() - blocks, 2);
    a = pp_mem_realloc(a, 100, 1000);
    CHECK_EQ(pp_mem_bytes() - bytes, 1050);
    a = pp_mem_realloc(a, 1000, 10);
    CHECK_EQ(pp_mem_bytes() - bytes, 60);
    void *c = pp_mem_realloc(NULL, 0, 5);
    CHECK_EQ(pp_mem_blocks() - blocks, 3);
    pp_mem_free(a, 10);
    pp_mem_free(b, 50);
    pp_mem_free(c, 5);
    pp_mem_free(NULL, 7);
    CHECK_EQ(pp_mem_bytes(), bytes);
    CHECK_EQ(pp_mem_blocks(), blocks);
}

/* Takes the block the thread before allocated, and leaves one of its own. */
static void *swap_block(void *arg)
{
    void **left = arg;
    pp_mem_free(*left, 30);
    void *passing = pp_mem_alloc(1000);
    *left = pp_mem_alloc(30);
    CHECK(passing != NULL && *left != NULL);
    pp_mem_free(passing, 1000);
    return NULL;
}

TEST(mem_counts_what_threads_allocate_and_others_free)
{
    enum { THREADS = 200, AT_ONCE = 4 }; /* more than there are stripes */
    uint64_t bytes = pp_mem_bytes(), blocks = pp_mem_blocks();
    void *left[AT_ONCE] = {NULL};
    for (int i = 0; i < THREADS / AT_ONCE; i++) {
        pthread_t threads[AT_ONCE];
        for (int t = 0; t < AT_ONCE; t++) {
            CHECK(pthread_create(&threads[t], NULL, swap_block, &left[t]) == 0);
        }
        for (int t = 0; t < AT_ONCE; t++) {
            CHECK(pthread_join(threads[t], NULL) == 0);
        }
        CHECK_EQ(pp_mem_bytes() - bytes, AT_ONCE * 30);
        CHECK_EQ(pp_mem_blocks() - blocks, AT_ONCE);
    }
    for (int t = 0; t < AT_ONCE; t++) {
        pp_mem_free(left[t], 30);
    }
    CHECK_EQ(pp_mem_bytes(), bytes);
    CHECK_EQ(pp_mem_blocks(), blocks);
}

#ifdef PP_FAILURE_INJECTION
TEST(mem_fails_the_chosen_allocation)
{
    uint64_t bytes = pp_mem_bytes();
    pp_mem_fail_at(2);
    void *a = pp_mem_alloc(10);
    CHECK(a != NULL);
    CHECK(pp_mem_zalloc(10) == NULL);
    void *b = pp_mem_alloc(10);
    CHECK(b != NULL);
    pp_mem_fail_at(1);
    CHECK(pp_mem_realloc(b, 10, 20) == NULL);
    pp_mem_fail_at(0);
    CHECK_EQ(pp_mem_bytes() - bytes, 20);
    pp_mem_free(a, 10);
    pp_mem_free(b, 10);
}

TEST(pool_passes_a_failed_allocation_on)
{
    struct pp_pool pool;
    pp_pool_init(&pool, 64, 1);
    pp_mem_fail_at(1);
    CHECK(pp_pool_take(&pool) == NULL);
    CHECK_EQ(pool.used_count, 0);
    void *a = pp_pool_take(&pool);
    CHECK(a != NULL);
    pp_pool_give(&pool, a);
    pp_mem_fail_at(1);
    CHECK(pp_pool_take(&pool) == a); /* from the free list: nothing is allocated */
    pp_mem_fail_at(0);
    pp_pool_give(&pool, a);
    pp_pool_fini(&pool);
}
#endif

TEST(pool_keeps_at_most_free_max)
{
    uint64_t blocks = pp_mem_blocks();
    struct pp_pool pool;
    void *taken[5];
    pp_pool_init(&pool, 64, 2);
    for (int i = 0; i < 5; i++) {
        taken[i] = pp_pool_take(&pool);
        CHECK(taken[i] != NULL);
        memset(taken[i], 0xaa, 64);
    }
    CHECK_EQ(pool.used_count, 5);
    for (int i = 0; i < 5; i++) {
        pp_pool_give(&pool, taken[i]);
    }
    CHECK_EQ(pool.free_count, 2);
    CHECK_EQ(pp_mem_blocks() - blocks, 2);
    CHECK(pp_pool_take(&pool) == taken[1]); /* the warmest first */
    pp_pool_give(&pool, taken[1]);
    pp_pool_fini(&pool);
    CHECK_EQ(pp_mem_blocks(), blocks);
}

/* ---- timer ---- */

TEST(timer_fires_at_the_first_tick_at_or_after_due)
{
    struct pp_wheel wheel;
    struct pp_timer timer;
    pp_wheel_init(&wheel, 1000);
    pp_timer_init(&timer, NULL);
    CHECK(!pp_timer_armed(&timer));
    CHECK_EQ(pp_wheel_wait_ms(&wheel, 1000), -1);
    pp_timer_set(&wheel, &timer, 1500);
    CHECK(pp_timer_armed(&timer));
    pp_wheel_advance(&wheel, 1499);
    CHECK(pp_wheel_pop(&wheel) == NULL);
    pp_wheel_advance(&wheel, 1535);
    CHECK(pp_wheel_pop(&wheel) == NULL);
    CHECK_EQ(pp_wheel_wait_ms(&wheel, 1535), 1);
    pp_wheel_advance(&wheel, 1536);
    CHECK_EQ(pp_wheel_wait_ms(&wheel, 1536), 0);
    CHECK(pp_wheel_pop(&wheel) == &timer);
    CHECK(!pp_timer_armed(&timer));
    CHECK(pp_wheel_pop(&wheel) == NULL);
}

TEST(timer_of_the_past_fires_with_the_next_tick)
{
    struct pp_wheel wheel;
    struct pp_timer timer;
    pp_wheel_init(&wheel, 64000);
    pp_timer_init(&timer, NULL);
    pp_timer_set(&wheel, &timer, 5);
    pp_wheel_advance(&wheel, 64000);
    CHECK(pp_wheel_pop(&wheel) == NULL);
    CHECK(pp_wheel_wait_ms(&wheel, 64000) <= PP_TIMER_TICK_MS);
    pp_wheel_advance(&wheel, 64064);
    CHECK(pp_wheel_pop(&wheel) == &timer);
}

TEST(timer_cancel_and_rearm)
{
    struct pp_wheel wheel;
    struct pp_timer a, b;
    pp_wheel_init(&wheel, 0);
    pp_timer_init(&a, NULL);
    pp_timer_init(&b, NULL);
    pp_timer_cancel(&wheel, &a);
    pp_timer_set(&wheel, &a, 100);
    pp_timer_set(&wheel, &b, 100);
    pp_timer_set(&wheel, &a, 10000); /* moves, does not double */
    CHECK_EQ(wheel.count, 2);
    pp_wheel_advance(&wheel, 200);
    CHECK(pp_timer_armed(&b)); /* expired, not yet popped */
    pp_timer_cancel(&wheel, &b);
    CHECK(pp_wheel_pop(&wheel) == NULL);
    CHECK_EQ(wheel.count, 1);
    pp_wheel_advance(&wheel, 10048);
    CHECK(pp_wheel_pop(&wheel) == &a);
    CHECK_EQ(wheel.count, 0);
    CHECK_EQ(pp_wheel_wait_ms(&wheel, 10048), -1);
}

static void walk(uint64_t start_ms, const uint64_t *delays_ms, size_t count, uint64_t step_max_ms)
{
    static struct pp_wheel wheel;
    static struct pp_timer timers[256];
    uint64_t now = start_ms;
    size_t fired = 0;
    CHECK(count <= 256);
    pp_wheel_init(&wheel, now);
    for (size_t i = 0; i < count; i++) {
        pp_timer_init(&timers[i], NULL);
        pp_timer_set(&wheel, &timers[i], now + delays_ms[i]);
    }
    uint64_t before = now;
    while (fired < count) {
        int wait = pp_wheel_wait_ms(&wheel, now);
        CHECK(wait >= 0 && wait <= 60000);
        before = now;
        now +=
            step_max_ms == 0 ? (wait > 0 ? (uint64_t)wait : 1) : 1 + test_random_below(step_max_ms);
        pp_wheel_advance(&wheel, now);
        struct pp_timer *timer;
        while ((timer = pp_wheel_pop(&wheel)) != NULL) {
            CHECK(timer->due_ms <= now);
            /* Not fired by the turn before, so it was not due a tick earlier than that. */
            CHECK(timer->due_ms + PP_TIMER_TICK_MS > before || before == start_ms);
            fired++;
        }
        CHECK_EQ(wheel.count, count - fired);
    }
}

TEST(timer_never_early_never_late_near_every_level)
{
    static const uint64_t TICK = PP_TIMER_TICK_MS;
    uint64_t delays[64];
    for (uint64_t start = 0; start < 3; start++) {
        for (size_t i = 0; i < 64; i++) {
            uint64_t border = i < 32 ? 256 : 65536;
            delays[i] = (border - 16 + i % 32) * TICK + i;
        }
        walk(start * 255 * TICK + 17, delays, 64, 0);
        walk(start * 65535 * TICK + 17, delays, 64, 0);
        walk(start * 65535 * TICK + 17, delays, 64, 5000);
    }
}

TEST(timer_random_walks)
{
    uint64_t delays[256];
    for (int round = 0; round < 50; round++) {
        uint64_t most = (uint64_t)1 << (6 + test_random_below(18));
        for (size_t i = 0; i < 256; i++) {
            delays[i] = test_random_below(most);
        }
        walk(test_random_below((uint64_t)1 << 40), delays, 256, round % 2 == 0 ? 0 : most / 8 + 1);
    }
}

TEST(timer_beyond_the_reach_of_the_wheel)
{
    struct pp_wheel wheel;
    struct pp_timer timer;
    uint64_t reach_ms = ((uint64_t)1 << 24) * PP_TIMER_TICK_MS;
    pp_wheel_init(&wheel, 12345);
    pp_timer_init(&timer, NULL);
    pp_timer_set(&wheel, &timer, reach_ms * 2);
    pp_wheel_advance(&wheel, reach_ms * 2 - 1);
    CHECK(pp_wheel_pop(&wheel) == NULL);
    pp_wheel_advance(&wheel, reach_ms * 2);
    CHECK(pp_wheel_pop(&wheel) == &timer);
}

/* ---- hist ---- */

TEST(hist_buckets_are_ordered_and_whole)
{
    uint64_t before = 0;
    CHECK_EQ(pp_hist_bucket(0), 0);
    CHECK_EQ(pp_hist_bucket(UINT64_MAX), PP_HIST_BUCKETS - 1);
    for (unsigned i = 0; i < PP_HIST_BUCKETS; i++) {
        uint64_t last = pp_hist_bucket_last(i);
        CHECK_EQ(pp_hist_bucket(last), i);
        CHECK(i == 0 || last > before);
        CHECK(i == 0 || pp_hist_bucket(before + 1) == i);
        CHECK(i < 4 || (last - before) * 4 <= before + 1); /* a quarter wide at most */
        before = last;
    }
    CHECK(before == UINT64_MAX);
}

TEST(hist_quantiles)
{
    static struct pp_hist a, b;
    pp_hist_init(&a);
    pp_hist_init(&b);
    CHECK_EQ(pp_hist_quantile(&a, 500), 0);
    for (uint64_t i = 1; i <= 1000; i++) {
        pp_hist_add(i % 2 == 0 ? &a : &b, i);
    }
    pp_hist_merge(&a, &b);
    CHECK_EQ(a.count, 1000);
    CHECK_EQ(a.sum, 500500);
    CHECK_EQ(pp_hist_quantile(&a, 0), 1);
    CHECK(pp_hist_quantile(&a, 500) >= 500 && pp_hist_quantile(&a, 500) < 640);
    CHECK(pp_hist_quantile(&a, 1000) >= 1000 && pp_hist_quantile(&a, 1000) < 1280);
}
