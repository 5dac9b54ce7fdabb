/* A test harness of a screenful: TEST(name) { CHECK(...); } in any file, main() in harness.c. */
#ifndef PP_TESTS_NATIVE_HARNESS_H
#define PP_TESTS_NATIVE_HARNESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct test {
    const char *name;
    void (*run)(void);
    struct test *next;
};
void test_register(struct test *test);

#define TEST(name_) \
    static void test_##name_(void); \
    __attribute__((constructor)) static void register_##name_(void) \
    { \
        static struct test test = {#name_, test_##name_, NULL}; \
        test_register(&test); \
    } \
    static void test_##name_(void)

/* A failed check is printed and ends the program with 1: what follows would be noise. */
_Noreturn void test_fail(const char *file, int line, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
#define CHECK(cond) \
    do { \
        if (!(cond)) { \
            test_fail(__FILE__, __LINE__, "%s", #cond); \
        } \
    } while (0)
#define CHECK_EQ(a, b) \
    do { \
        long long a_ = (long long)(a), b_ = (long long)(b); \
        if (a_ != b_) { \
            test_fail(__FILE__, __LINE__, "%s is %lld, not %s = %lld", #a, a_, #b, b_); \
        } \
    } while (0)
#define CHECK_BYTES(data, len, text) \
    test_check_bytes(__FILE__, __LINE__, (data), (len), (text), strlen(text))
void test_check_bytes(const char *file, int line, const void *data, size_t len, const char *text,
                      size_t text_len);

/* A copy of data[0, len) that ends right before an unreadable page, and begins right behind one
 * when len is a multiple of the page size. The next call takes the memory back. */
uint8_t *test_guard(const void *data, size_t len);

/* Deterministic random numbers; the seed is printed and taken from PP_TEST_SEED. */
uint64_t test_random(void);
static inline uint64_t test_random_below(uint64_t n)
{
    return test_random() % n;
}

#endif
