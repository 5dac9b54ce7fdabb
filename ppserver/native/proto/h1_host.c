/* Authority syntax (RFC 3986 section 3.2.2), as Host and request targets may carry it.
 *
 * Pure functions over bytes. A registered name is checked against its character set only; brackets
 * must hold a whole IPv6 address. Leaves out: name resolution, normalisation, zones, IPvFuture. */
#include "proto/h1_host.h"

#include "base/assert.h"
#include "base/text.h"
#include "proto/h1_class.h"

static bool is_digit(uint8_t c)
{
    return c >= '0' && c <= '9';
}

/* Four decimal octets: the tail of "::ffff:192.0.2.1". */
static bool ipv4_valid(const uint8_t *data, size_t len)
{
    size_t i = 0;
    for (int octet = 0; octet < 4; octet++) {
        if (octet > 0 && (i >= len || data[i++] != '.')) {
            return false;
        }
        size_t first = i;
        unsigned value = 0;
        while (i < len && i - first < 3 && is_digit(data[i])) {
            value = value * 10 + (data[i++] - '0');
        }
        if (i == first || value > 255 || (i - first > 1 && data[first] == '0')) {
            return false;
        }
    }
    return i == len;
}

/* Eight groups of one to four hex digits, one run of them written "::", the last two perhaps as
 * IPv4. */
static bool ipv6_valid(const uint8_t *data, size_t len)
{
    int groups = 0;
    bool gap = false;
    size_t i = 0;
    if (len >= 2 && data[0] == ':' && data[1] == ':') {
        gap = true;
        i = 2;
        if (i == len) {
            return true;
        }
    }
    for (;;) {
        size_t first = i;
        while (i < len && i - first < 5 && pp_text_hex_value(data[i]) >= 0) {
            i++;
        }
        if (i < len && data[i] == '.') {
            return ipv4_valid(data + first, len - first) &&
                   (gap ? groups + 2 <= 7 : groups + 2 == 8);
        }
        if (i == first || i - first > 4) {
            return false;
        }
        groups++;
        if (i == len) {
            return gap ? groups <= 7 : groups == 8;
        }
        if (data[i++] != ':' || i == len || groups == 8) {
            return false;
        }
        if (data[i] == ':') {
            if (gap) {
                return false;
            }
            gap = true;
            if (++i == len) {
                return groups <= 7;
            }
        }
    }
}

static bool port_valid(const uint8_t *data, size_t len, bool needed)
{
    if (len > 5) {
        return false;
    }
    for (size_t i = 0; i < len; i++) {
        if (!is_digit(data[i])) {
            return false;
        }
    }
    if (len == 5 && data[0] >= '6') {
        return memcmp(data, "65535", 5) <= 0;
    }
    return len > 0 || !needed;
}

static bool four_of_host(const uint8_t *data)
{
    return (pp_h1_class[data[0]] & pp_h1_class[data[1]] & pp_h1_class[data[2]] &
            pp_h1_class[data[3]] & PP_H1_HOST) != 0;
}

/* A reg-name from its first percent-escape on: where it ends; len + 1 when an escape is broken. */
static PP_NOINLINE size_t escaped_name(const uint8_t *data, size_t len, size_t i)
{
    while (i < len && (data[i] == '%' || pp_h1_is(data[i], PP_H1_HOST))) {
        if (data[i] != '%') {
            i++;
        } else if (len - i < 3 || pp_text_hex_value(data[i + 1]) < 0 ||
                   pp_text_hex_value(data[i + 2]) < 0) {
            return len + 1;
        } else {
            i += 3;
        }
    }
    return i;
}

/* The length of the reg-name at the start; len + 1 when a percent-escape is broken. */
static size_t reg_name(const uint8_t *data, size_t len)
{
    size_t i = 0;
    while (len - i >= 4 && four_of_host(data + i)) {
        i += 4;
    }
    while (i < len && pp_h1_is(data[i], PP_H1_HOST)) {
        i++;
    }
    return PP_UNLIKELY(i < len && data[i] == '%') ? escaped_name(data, len, i) : i;
}

/* Of an address in brackets; 0 when it is none. Not inlined: what names mostly are needs no
 * registers of it. */
static PP_NOINLINE size_t ip_literal(const uint8_t *data, size_t len)
{
    const uint8_t *close = memchr(data, ']', len);
    if (close == NULL || !ipv6_valid(data + 1, (size_t)(close - data) - 1)) {
        return 0;
    }
    return (size_t)(close - data) + 1;
}

bool pp_h1_host_valid(const uint8_t *data, size_t len, enum pp_h1_host_rule rule)
{
    size_t host_len;
    if (len == 0) {
        return rule == PP_H1_HOST_MAY_BE_EMPTY;
    }
    if (data[0] == '[') {
        host_len = ip_literal(data, len);
        if (host_len == 0) {
            return false;
        }
    } else {
        host_len = reg_name(data, len);
        if (host_len > len || (host_len == 0 && rule != PP_H1_HOST_MAY_BE_EMPTY)) {
            return false;
        }
    }
    if (host_len == len) {
        return rule != PP_H1_HOST_PORT_NEEDED;
    }
    return data[host_len] == ':' &&
           port_valid(data + host_len + 1, len - host_len - 1, rule == PP_H1_HOST_PORT_NEEDED);
}
