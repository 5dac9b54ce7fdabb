/* The harness's main(): runs every registered test, or those whose name contains an argument.
 *
 * Guarded memory is one mapping that is used again for each test. One thread, exit code 1 at the
 * first failure. Leaves out: isolation between tests (a crash ends the program, sanitizers say
 * where). */
#include "harness.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define GUARD_BYTES ((size_t)1 << 20)

static struct test *first;
static const char *current = "";
static uint64_t random_state;
static uint64_t random_seed;

void test_register(struct test *test)
{
    struct test **at = &first;
    while (*at != NULL && strcmp((*at)->name, test->name) < 0) {
        at = &(*at)->next;
    }
    test->next = *at;
    *at = test;
}

void test_fail(const char *file, int line, const char *format, ...)
{
    va_list args;
    fprintf(stderr, "FAILED %s (%s:%d, PP_TEST_SEED=%llu): ", current, file, line,
            (unsigned long long)random_seed);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fprintf(stderr, "\n");
    exit(1);
}

void test_check_bytes(const char *file, int line, const void *data, size_t len, const char *text,
                      size_t text_len)
{
    if (len != text_len || memcmp(data, text, len) != 0) {
        test_fail(file, line, "\"%.*s\" is not \"%s\"", (int)len, (const char *)data, text);
    }
}

uint8_t *test_guard(const void *data, size_t len)
{
    static uint8_t *map; /* [none][GUARD_BYTES][none] */
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    if (map == NULL) {
        map = mmap(NULL, GUARD_BYTES + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (map == MAP_FAILED || mprotect(map + page, GUARD_BYTES, PROT_READ | PROT_WRITE) != 0) {
            test_fail(__FILE__, __LINE__, "no guarded memory");
        }
    }
    if (len > GUARD_BYTES) {
        test_fail(__FILE__, __LINE__, "%zu bytes do not fit", len);
    }
    uint8_t *at = map + page + GUARD_BYTES - len;
    if (len > 0) {
        memcpy(at, data, len);
    }
    return at;
}

/* SplitMix64. */
uint64_t test_random(void)
{
    uint64_t z = random_state += 0x9e3779b97f4a7c15ull;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

int main(int argc, char **argv)
{
    const char *seed = getenv("PP_TEST_SEED");
    unsigned ran = 0;
    random_seed = seed != NULL ? strtoull(seed, NULL, 10) : 20240607;
    for (struct test *test = first; test != NULL; test = test->next) {
        bool wanted = argc < 2;
        for (int i = 1; i < argc; i++) {
            wanted |= strstr(test->name, argv[i]) != NULL;
        }
        if (wanted) {
            current = test->name;
            random_state = random_seed;
            test->run();
            ran++;
        }
    }
    printf("%u tests passed\n", ran);
    return ran == 0;
}
