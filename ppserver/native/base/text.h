/* Numbers and escapes in bytes of text: no terminators, no locale. Any thread. */
#ifndef PP_BASE_TEXT_H
#define PP_BASE_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PP_TEXT_DECIMAL_MAX 20 /* digits of UINT64_MAX */

static inline int pp_text_hex_value(uint8_t c) /* -1 for what is not a hex digit */
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* What digits and nothing else say, up to INT64_MAX: no length in bytes is more, and none that is
 * added to it overflows. False, with *value as it was: it is not that. */
bool pp_text_decimal(const uint8_t *text, size_t len, uint64_t *value);
/* Writes value in digits, at most PP_TEXT_DECIMAL_MAX; how many. */
size_t pp_text_put_decimal(uint8_t *out, uint64_t value);
/* Percent-decodes text to out, which has room for len bytes and may be text itself; how many there
 * are. A malformed "%" stays as it is. */
size_t pp_text_unescape(const uint8_t *text, size_t len, uint8_t *out);

#endif
