/* Class scans for x86-64: SSE4.2 (16 bytes at a time) and AVX2 (32).
 *
 * Tokens and targets are classified by two look-ups in registers: the low half of a byte picks a
 * row, the high half a bit of it; bytes above 0x7F pick an empty row. Field values need comparisons
 * only. Compiled for every x86-64 by function attributes, used only where the processor has them.
 * No load crosses either end: what is left after whole vectors is looked at by one more load that
 * overlaps bytes already known to be good, or, when there never was a whole vector, by the scalar
 * reference. Any thread. */
#include "proto/h1_scan_impl.h"

#ifdef __x86_64__

#include <immintrin.h>

#define SSE42 __attribute__((target("sse4.2")))
#define AVX2 __attribute__((target("avx2")))

/* Row = low half of the byte, bit = high half; a unit test compares with the class tables. */
#define TOKEN_ROWS \
    0xe8, 0xfc, 0xf8, 0xfc, 0xfc, 0xfc, 0xfc, 0xfc, 0xf8, 0xf8, 0xf4, 0x54, 0xd0, 0x54, 0xf4, 0x70
#define TARGET_ROWS \
    0xf8, 0xfc, 0xfc, 0xf8, 0xfc, 0xfc, 0xfc, 0xfc, 0xfc, 0xfc, 0xfc, 0xfc, 0xfc, 0xfc, 0xfc, 0x7c
#define BITS 1, 2, 4, 8, 16, 32, 64, 128, 0, 0, 0, 0, 0, 0, 0, 0

static const uint8_t ROWS_OF_TOKEN[32] = {TOKEN_ROWS, TOKEN_ROWS};
static const uint8_t ROWS_OF_TARGET[32] = {TARGET_ROWS, TARGET_ROWS};
static const uint8_t BIT_OF_HIGH[32] = {BITS, BITS};

/* ---- masks: bit i is set when byte i is not in the class ---- */

SSE42 static inline uint32_t bad_value_16(__m128i x)
{
    __m128i printable = _mm_cmpeq_epi8(_mm_max_epu8(x, _mm_set1_epi8(0x20)), x);
    __m128i good = _mm_or_si128(printable, _mm_cmpeq_epi8(x, _mm_set1_epi8('\t')));
    __m128i bad = _mm_cmpeq_epi8(x, _mm_set1_epi8(0x7f));
    good = _mm_andnot_si128(bad, good);
    return ~(uint32_t)_mm_movemask_epi8(good) & 0xffffu;
}

SSE42 static inline uint32_t bad_rows_16(__m128i x, const uint8_t *rows)
{
    __m128i row = _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)(const void *)rows), x);
    __m128i high = _mm_and_si128(_mm_srli_epi16(x, 4), _mm_set1_epi8(0x0f));
    __m128i bit =
        _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)(const void *)BIT_OF_HIGH), high);
    __m128i bad = _mm_cmpeq_epi8(_mm_and_si128(row, bit), _mm_setzero_si128());
    return (uint32_t)_mm_movemask_epi8(bad);
}

AVX2 static inline uint32_t bad_value_32(__m256i x)
{
    __m256i printable = _mm256_cmpeq_epi8(_mm256_max_epu8(x, _mm256_set1_epi8(0x20)), x);
    __m256i good = _mm256_or_si256(printable, _mm256_cmpeq_epi8(x, _mm256_set1_epi8('\t')));
    __m256i bad = _mm256_cmpeq_epi8(x, _mm256_set1_epi8(0x7f));
    good = _mm256_andnot_si256(bad, good);
    return ~(uint32_t)_mm256_movemask_epi8(good);
}

AVX2 static inline uint32_t bad_rows_32(__m256i x, const uint8_t *rows)
{
    __m256i row = _mm256_shuffle_epi8(_mm256_loadu_si256((const __m256i *)(const void *)rows), x);
    __m256i high = _mm256_and_si256(_mm256_srli_epi16(x, 4), _mm256_set1_epi8(0x0f));
    __m256i bit =
        _mm256_shuffle_epi8(_mm256_loadu_si256((const __m256i *)(const void *)BIT_OF_HIGH), high);
    __m256i bad = _mm256_cmpeq_epi8(_mm256_and_si256(row, bit), _mm256_setzero_si256());
    return (uint32_t)_mm256_movemask_epi8(bad);
}

/* ---- the loops, once per class ---- */

#define LOAD_16(p) _mm_loadu_si128((const __m128i *)(const void *)(p))
#define LOAD_32(p) _mm256_loadu_si256((const __m256i *)(const void *)(p))

#define SCAN_16(name, scalar, bad_16) \
    SSE42 static size_t name(const uint8_t *data, size_t len) \
    { \
        size_t i = 0; \
        if (len < 16) { \
            return scalar(data, len); \
        } \
        for (;;) { \
            uint32_t bad = bad_16(LOAD_16(data + i)); \
            if (bad != 0) { \
                return i + (unsigned)__builtin_ctz(bad); \
            } \
            i += 16; \
            if (i == len) { \
                return len; \
            } \
            if (len - i < 16) { \
                i = len - 16; /* once more over good bytes */ \
            } \
        } \
    }

#define SCAN_32(name, shorter, bad_32) \
    AVX2 static size_t name(const uint8_t *data, size_t len) \
    { \
        size_t i = 0; \
        if (len < 32) { \
            return shorter(data, len); \
        } \
        for (;;) { \
            uint32_t bad = bad_32(LOAD_32(data + i)); \
            if (bad != 0) { \
                return i + (unsigned)__builtin_ctz(bad); \
            } \
            i += 32; \
            if (i == len) { \
                return len; \
            } \
            if (len - i < 32) { \
                i = len - 32; \
            } \
        } \
    }

#define BAD_TOKEN_16(x) bad_rows_16((x), ROWS_OF_TOKEN)
#define BAD_TARGET_16(x) bad_rows_16((x), ROWS_OF_TARGET)
#define BAD_TOKEN_32(x) bad_rows_32((x), ROWS_OF_TOKEN)
#define BAD_TARGET_32(x) bad_rows_32((x), ROWS_OF_TARGET)

SCAN_16(sse42_value, pp_h1_scan_scalar_value, bad_value_16)
SCAN_16(sse42_token, pp_h1_scan_scalar_token, BAD_TOKEN_16)
SCAN_16(sse42_target, pp_h1_scan_scalar_target, BAD_TARGET_16)
SCAN_32(avx2_value, sse42_value, bad_value_32)
SCAN_32(avx2_token, sse42_token, BAD_TOKEN_32)
SCAN_32(avx2_target, sse42_target, BAD_TARGET_32)

static const struct pp_h1_scan SSE42_SCAN = {"sse42", sse42_token, sse42_value, sse42_target};
static const struct pp_h1_scan AVX2_SCAN = {"avx2", avx2_token, avx2_value, avx2_target};

size_t pp_h1_scan_native(const struct pp_h1_scan **list, size_t room)
{
    size_t count = 0;
    __builtin_cpu_init();
    if (__builtin_cpu_supports("sse4.2") && count < room) {
        list[count++] = &SSE42_SCAN;
    }
    if (__builtin_cpu_supports("avx2") && count < room) {
        list[count++] = &AVX2_SCAN;
    }
    return count;
}

#endif
