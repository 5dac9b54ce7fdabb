/* Numbers and escapes in text (contract: text.h). */
#include "base/text.h"

bool pp_text_decimal(const uint8_t *text, size_t len, uint64_t *value)
{
    uint64_t n = 0;
    for (size_t i = 0; i < len; i++) {
        uint8_t digit = (uint8_t)(text[i] - '0');
        if (digit > 9 || n > ((uint64_t)INT64_MAX - digit) / 10) {
            return false;
        }
        n = n * 10 + digit;
    }
    if (len == 0) {
        return false;
    }
    *value = n;
    return true;
}

size_t pp_text_put_decimal(uint8_t *out, uint64_t value)
{
    uint8_t digits[PP_TEXT_DECIMAL_MAX];
    size_t n = 0, len = 0;
    do {
        digits[n++] = (uint8_t)('0' + value % 10);
        value /= 10;
    } while (value != 0);
    while (n > 0) {
        out[len++] = digits[--n];
    }
    return len;
}

size_t pp_text_unescape(const uint8_t *text, size_t len, uint8_t *out)
{
    size_t n = 0;
    for (size_t i = 0; i < len; i++) {
        int high, low;
        if (text[i] == '%' && len - i > 2 && (high = pp_text_hex_value(text[i + 1])) >= 0 &&
            (low = pp_text_hex_value(text[i + 2])) >= 0) {
            out[n++] = (uint8_t)(high << 4 | low);
            i += 2;
        } else {
            out[n++] = text[i];
        }
    }
    return n;
}
