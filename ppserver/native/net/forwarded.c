/* Forwarded fields (contract: forwarded.h). Works on the spans of a parsed head, whose names are in
 * lower case; one pass from the right over the list, bounded by its number of entries. */
#include "net/forwarded.h"
#include "net/sys.h"

#include <string.h>
#include <strings.h>

#include "base/assert.h"
#include "base/mem.h"

#define HOP_BYTES_MAX 80 /* "[", an IPv6 address, "%", a zone, "]:", a port */
#define ZONE_BYTES_MAX 32

static size_t trusted_bytes(uint32_t count)
{
    return sizeof(struct pp_trusted) + count * sizeof(struct pp_network);
}

struct pp_trusted *pp_trusted_copy(const struct pp_trusted *trusted)
{
    PP_CHECK(trusted->count <= PP_TRUSTED_NETWORKS_MAX);
    struct pp_trusted *copy = pp_mem_alloc(trusted_bytes(trusted->count));
    if (copy != NULL) {
        memcpy(copy, trusted, trusted_bytes(trusted->count));
    }
    return copy;
}

void pp_trusted_free(struct pp_trusted *trusted)
{
    if (trusted != NULL) {
        pp_mem_free(trusted, trusted_bytes(trusted->count));
    }
}

static bool in_network(const struct pp_network *network, const uint8_t address[16])
{
    unsigned whole = network->bits / 8, rest = network->bits % 8;
    if (memcmp(network->address, address, whole) != 0) {
        return false;
    }
    return rest == 0 || ((network->address[whole] ^ address[whole]) >> (8 - rest)) == 0;
}

bool pp_trusted_has(const struct pp_trusted *trusted, const union pp_sock_addr *address)
{
    uint8_t bytes[16] = {[10] = 0xff, [11] = 0xff};
    if (trusted->everybody) {
        return true;
    }
    if (address->family == AF_INET) {
        memcpy(bytes + 12, &address->in.sin_addr, 4);
    } else if (address->family == AF_INET6) {
        memcpy(bytes, &address->in6.sin6_addr, 16);
    } else {
        return address->family == AF_UNIX && trusted->unix_peers;
    }
    for (uint32_t i = 0; i < trusted->count; i++) {
        if (in_network(&trusted->networks[i], bytes)) {
            return true;
        }
    }
    return false;
}

/* ---- one hop ---- */

static bool read_port(const char *text, in_port_t *port)
{
    unsigned value = 0;
    size_t len = strlen(text);
    if (len == 0 || len > 5) {
        return false;
    }
    for (size_t i = 0; i < len; i++) {
        if (text[i] < '0' || text[i] > '9') {
            return false;
        }
        value = value * 10 + (unsigned)(text[i] - '0');
    }
    *port = htons((uint16_t)value);
    return value <= 65535;
}

/* A zone says nothing outside of the host it was written on: it is checked and left out. */
static bool cut_zone(char *host)
{
    char *zone = strchr(host, '%');
    if (zone == NULL) {
        return true;
    }
    *zone++ = '\0';
    size_t len = strlen(zone);
    if (len == 0 || len > ZONE_BYTES_MAX || strchr(host, ':') == NULL) {
        return false;
    }
    for (size_t i = 0; i < len; i++) {
        char c = zone[i];
        if (!((c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z') || c == '.' ||
              c == '-' || c == '_')) {
            return false;
        }
    }
    return true;
}

/* "192.0.2.1", "192.0.2.1:80", "2001:db8::1", "[2001:db8::1]:80"; the port is 0 if it has none. */
static bool read_hop(const uint8_t *data, size_t len, union pp_sock_addr *address)
{
    char text[HOP_BYTES_MAX + 1], *host = text;
    const char *port = "0";
    in_port_t port_be;
    if (len == 0 || len > HOP_BYTES_MAX || memchr(data, '\0', len) != NULL) {
        return false;
    }
    memcpy(text, data, len);
    text[len] = '\0';
    char *colon = strchr(text, ':');
    if (text[0] == '[') {
        char *end = strchr(text, ']');
        if (end == NULL || (end[1] != '\0' && end[1] != ':')) {
            return false;
        }
        port = end[1] == ':' ? end + 2 : port;
        *end = '\0';
        host = text + 1;
    } else if (colon != NULL && strchr(colon + 1, ':') == NULL) {
        port = colon + 1;
        *colon = '\0';
    }
    if (!read_port(port, &port_be) || !cut_zone(host)) {
        return false;
    }
    memset(address, 0, sizeof *address);
    if (inet_pton(AF_INET, host, &address->in.sin_addr) == 1) {
        address->family = AF_INET;
        address->in.sin_port = port_be;
        return true;
    }
    if (inet_pton(AF_INET6, host, &address->in6.sin6_addr) == 1) {
        address->family = AF_INET6;
        address->in6.sin6_port = port_be;
        return true;
    }
    return false;
}

/* ---- the lists ---- */

/* Splits the last entry off [data, data + *len), without the white space around it. */
static const uint8_t *last_entry(const uint8_t *data, size_t *len, size_t *entry_len)
{
    size_t end = *len, start;
    while (end > 0 && (data[end - 1] == ' ' || data[end - 1] == '\t')) {
        end--;
    }
    for (start = end; start > 0 && data[start - 1] != ','; start--) {}
    *len = start > 0 ? start - 1 : 0;
    while (start < end && (data[start] == ' ' || data[start] == '\t')) {
        start++;
    }
    *entry_len = end - start;
    return data + start;
}

static enum pp_forwarded_scheme read_scheme(const uint8_t *data, size_t len)
{
    size_t rest = len, n;
    const char *word = (const char *)last_entry(data, &rest, &n);
    if ((n == 5 && strncasecmp(word, "https", 5) == 0) ||
        (n == 3 && strncasecmp(word, "wss", 3) == 0)) {
        return PP_SCHEME_HTTPS;
    }
    bool plain = (n == 4 && strncasecmp(word, "http", 4) == 0) ||
                 (n == 2 && strncasecmp(word, "ws", 2) == 0);
    return plain ? PP_SCHEME_HTTP : PP_SCHEME_UNSAID;
}

/* One field of the list; false: the list's end is reached, as far as it proves anything. */
static bool read_list(const struct pp_trusted *trusted, const uint8_t *data, size_t len,
                      unsigned *hops, struct pp_forwarded *found)
{
    bool more = true;
    while (more) {
        size_t rest = len, n;
        union pp_sock_addr address;
        const uint8_t *entry = last_entry(data, &rest, &n);
        more = entry > data && memchr(data, ',', (size_t)(entry - data)) != NULL;
        len = rest;
        if (++*hops > PP_FORWARDED_HOPS_MAX) {
            found->client.family = AF_UNSPEC;
            return false;
        }
        if (!read_hop(entry, n, &address)) {
            return false;
        }
        found->client = address;
        if (!pp_trusted_has(trusted, &address)) {
            return false;
        }
    }
    return true;
}

void pp_forwarded_read(const struct pp_trusted *trusted, const struct pp_head *head,
                       const uint8_t *base, struct pp_forwarded *found)
{
    unsigned hops = 0;
    bool going_on = true, scheme_seen = false;
    memset(found, 0, sizeof *found);
    found->client.family = AF_UNSPEC;
    for (unsigned i = head->field_count; i > 0; i--) { /* several fields are one list */
        const struct pp_field *field = &head->fields[i - 1];
        const uint8_t *value = base + field->value_off;
        if (field->name_id == PP_H1_NAME_X_FORWARDED_FOR && going_on) {
            going_on = read_list(trusted, value, field->value_len, &hops, found);
        } else if (field->name_id == PP_H1_NAME_X_FORWARDED_PROTO && !scheme_seen) {
            found->scheme = read_scheme(value, field->value_len);
            scheme_seen = true;
        }
    }
}

/* ---- removing ---- */

static bool is_forwarded(const struct pp_field *field, const uint8_t *base, bool all)
{
    static const char *const names[] = {
        "forwarded",          "x-forwarded-for",    "x-forwarded-host",
        "x-forwarded-port",   "x-forwarded-prefix", "x-forwarded-proto",
        "x-forwarded-server", "x-forwarded-ssl",    "x-real-ip",
    };
    char name[20];
    const uint8_t *text = base + field->name_off;
    if (field->name_len < 9 || field->name_len >= sizeof name ||
        (text[0] != 'x' && text[0] != 'f')) {
        return false;
    }
    bool underscored = false;
    for (size_t i = 0; i < field->name_len; i++) {
        underscored |= text[i] == '_';
        name[i] = (char)(text[i] == '_' ? '-' : text[i]);
    }
    name[field->name_len] = '\0';
    if (!underscored && !all) {
        return false;
    }
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (strcmp(name, names[i]) == 0) {
            return true;
        }
    }
    return false;
}

void pp_forwarded_strip(struct pp_head *head, const uint8_t *base, bool all)
{
    uint16_t kept = 0;
    for (uint16_t i = 0; i < head->field_count; i++) {
        if (!is_forwarded(&head->fields[i], base, all)) {
            if (kept != i) {
                head->fields[kept] = head->fields[i];
            }
            kept++;
        }
    }
    head->field_count = kept;
}
