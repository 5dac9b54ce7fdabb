/* Byte classes of HTTP/1.1, as a table and as tests on eight bytes at once. Private to proto/. */
#ifndef PP_PROTO_H1_CLASS_H
#define PP_PROTO_H1_CLASS_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define PP_H1_TCHAR 1u  /* RFC 9110 5.6.2 */
#define PP_H1_VALUE 2u  /* field-value bytes: HTAB, SP, VCHAR, obs-text (RFC 9110 5.5) */
#define PP_H1_TARGET 4u /* 0x21..0x7E without "#" */
#define PP_H1_HOST 8u   /* reg-name: unreserved, sub-delims (RFC 3986 3.2.2); "%" is apart */

extern const uint8_t pp_h1_class[256];
/* The lower-case form of a tchar; 0 for every other byte. */
extern const uint8_t pp_h1_lower[256];

static inline bool pp_h1_is(uint8_t byte, unsigned classes)
{
    return (pp_h1_class[byte] & classes) != 0;
}

#define PP_H1_ONES 0x0101010101010101ull
#define PP_H1_HIGH 0x8080808080808080ull

/* In each mask below the lowest set bit is exact: it marks the first byte of the kind. Higher ones
 * may be false, because borrows run upwards; so take only the first (on little endian). */
static inline uint64_t pp_h1_mask_zero(uint64_t x)
{
    return (x - PP_H1_ONES) & ~x & PP_H1_HIGH;
}
static inline uint64_t pp_h1_mask_below(uint64_t x, uint8_t n) /* n <= 128 */
{
    return (x - PP_H1_ONES * n) & ~x & PP_H1_HIGH;
}
static inline uint64_t pp_h1_mask_equal(uint64_t x, uint8_t c)
{
    return pp_h1_mask_zero(x ^ (PP_H1_ONES * c));
}
static inline uint64_t pp_h1_load8(const uint8_t *data)
{
    uint64_t x;
    memcpy(&x, data, 8);
    return x;
}
/* Eight bytes of it: only the letters of a lower-case word, its bytes above 0x3F, have a capital.
 */
static inline bool pp_h1_is_word8(const uint8_t *data, const char *word)
{
    uint64_t w = pp_h1_load8((const uint8_t *)word);
    return ((pp_h1_load8(data) ^ w) & ~((w & PP_H1_ONES * 0x40) >> 1)) == 0;
}

/* ASCII case-insensitive comparison with a word of lower-case letters, digits and hyphens. */
static inline bool pp_h1_is_word(const uint8_t *data, size_t len, const char *word, size_t word_len)
{
    if (len != word_len) {
        return false;
    }
    if (len >= 8) {
        for (size_t i = 0; i + 8 <= len; i += 8) {
            if (!pp_h1_is_word8(data + i, word + i)) {
                return false;
            }
        }
        return pp_h1_is_word8(data + len - 8, word + len - 8);
    }
    for (size_t i = 0; i < len; i++) {
        uint8_t c = data[i];
        if (c >= 'A' && c <= 'Z') {
            c |= 0x20;
        }
        if (c != (uint8_t)word[i]) {
            return false;
        }
    }
    return true;
}
#define PP_H1_IS_WORD(data, len, word) pp_h1_is_word((data), (len), "" word, sizeof word - 1)

#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define PP_H1_HAVE_WORDS 1
#else
#define PP_H1_HAVE_WORDS 0
#endif

#endif
