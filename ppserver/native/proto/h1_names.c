/* Known header names: recognition by a perfect hash over length, first, last but one
 * and last byte.
 *
 * One table look-up gives the only candidate, one comparison decides; unknown names cost the same.
 * Constant data: any thread. Leaves out: lower-casing (h1_parse.c has done it before). */
#include "proto/h1_names.h"

#include <assert.h>
#include <string.h>

#include "proto/h1_class.h"

/* Made by scripts/h1_names_slots.py from PP_H1_NAMES; a unit test finds every name through it. */
#define SLOT_A 1
#define SLOT_B 5
#define SLOT_C 63

static const uint8_t SLOTS[256] = {
    [14] = PP_H1_NAME_SEC_FETCH_DEST,
    [19] = PP_H1_NAME_SEC_WEBSOCKET_VERSION,
    [41] = PP_H1_NAME_X_FORWARDED_HOST,
    [42] = PP_H1_NAME_X_FORWARDED_FOR,
    [49] = PP_H1_NAME_COOKIE,
    [55] = PP_H1_NAME_TE,
    [61] = PP_H1_NAME_PRIORITY,
    [62] = PP_H1_NAME_SEC_FETCH_SITE,
    [66] = PP_H1_NAME_ACCEPT_CHARSET,
    [70] = PP_H1_NAME_FORWARDED,
    [72] = PP_H1_NAME_SEC_CH_UA_MOBILE,
    [78] = PP_H1_NAME_SEC_FETCH_MODE,
    [81] = PP_H1_NAME_UPGRADE,
    [92] = PP_H1_NAME_X_REQUESTED_WITH,
    [97] = PP_H1_NAME_UPGRADE_INSECURE_REQUESTS,
    [100] = PP_H1_NAME_X_FORWARDED_PROTO,
    [106] = PP_H1_NAME_PRAGMA,
    [109] = PP_H1_NAME_ACCEPT_ENCODING,
    [116] = PP_H1_NAME_SEC_CH_UA,
    [118] = PP_H1_NAME_ORIGIN,
    [120] = PP_H1_NAME_CONTENT_ENCODING,
    [125] = PP_H1_NAME_DNT,
    [137] = PP_H1_NAME_VIA,
    [142] = PP_H1_NAME_REFERER,
    [144] = PP_H1_NAME_KEEP_ALIVE,
    [152] = PP_H1_NAME_TRAILER,
    [154] = PP_H1_NAME_SEC_FETCH_USER,
    [159] = PP_H1_NAME_X_REQUEST_ID,
    [164] = PP_H1_NAME_SEC_WEBSOCKET_KEY,
    [168] = PP_H1_NAME_X_REAL_IP,
    [177] = PP_H1_NAME_AUTHORIZATION,
    [178] = PP_H1_NAME_ACCEPT_LANGUAGE,
    [184] = PP_H1_NAME_CONNECTION,
    [185] = PP_H1_NAME_CACHE_CONTROL,
    [204] = PP_H1_NAME_SEC_CH_UA_PLATFORM,
    [205] = PP_H1_NAME_HOST,
    [206] = PP_H1_NAME_TRANSFER_ENCODING,
    [208] = PP_H1_NAME_EXPECT,
    [211] = PP_H1_NAME_IF_RANGE,
    [217] = PP_H1_NAME_USER_AGENT,
    [218] = PP_H1_NAME_IF_MATCH,
    [223] = PP_H1_NAME_IF_NONE_MATCH,
    [224] = PP_H1_NAME_IF_MODIFIED_SINCE,
    [233] = PP_H1_NAME_DATE,
    [239] = PP_H1_NAME_ACCEPT,
    [240] = PP_H1_NAME_CONTENT_TYPE,
    [241] = PP_H1_NAME_CONTENT_LENGTH,
    [253] = PP_H1_NAME_RANGE,
    [255] = PP_H1_NAME_PROXY_CONNECTION,
};

#define TEXT_BYTES 26

struct known {
    char text[TEXT_BYTES];
    uint8_t len;
};

static const struct known KNOWN[PP_H1_NAME_COUNT] = {{"", 0},
#define KNOWN_ENTRY(ident, text) {text, sizeof text - 1},
                                                     PP_H1_NAMES(KNOWN_ENTRY)
#undef KNOWN_ENTRY
};

#define CHECK_LENGTH(ident, text) \
    static_assert(sizeof text - 1 >= 2 && sizeof text <= TEXT_BYTES, "length of " #ident);
PP_H1_NAMES(CHECK_LENGTH)
#undef CHECK_LENGTH

static_assert(PP_H1_NAME_COUNT <= 256, "slots are bytes");

static unsigned slot_of(const uint8_t *name, size_t len)
{
    return ((unsigned)len * SLOT_A + name[0] * SLOT_B + name[len - 2] * SLOT_C + name[len - 1]) &
           (sizeof SLOTS - 1);
}

/* Both have len >= 2 bytes. Two overlapping words instead of a call of memcmp. */
static int equal(const uint8_t *a, const char *b, size_t len)
{
    uint64_t a8, b8;
    uint32_t a4, b4;
    if (len >= 8) {
        for (size_t i = 0; i + 8 < len; i += 8) {
            memcpy(&a8, a + i, 8);
            memcpy(&b8, b + i, 8);
            if (a8 != b8) {
                return 0;
            }
        }
        memcpy(&a8, a + len - 8, 8);
        memcpy(&b8, b + len - 8, 8);
        return a8 == b8;
    }
    if (len >= 4) {
        uint32_t a4_end, b4_end;
        memcpy(&a4, a, 4);
        memcpy(&b4, b, 4);
        memcpy(&a4_end, a + len - 4, 4);
        memcpy(&b4_end, b + len - 4, 4);
        return a4 == b4 && a4_end == b4_end;
    }
    return a[0] == (uint8_t)b[0] && a[1] == (uint8_t)b[1] && a[len - 1] == (uint8_t)b[len - 1];
}

uint16_t pp_h1_name_find(const uint8_t *name, size_t len)
{
    if (len < 2 || len >= TEXT_BYTES) {
        return PP_H1_NAME_OTHER;
    }
    uint8_t id = SLOTS[slot_of(name, len)];
    if (KNOWN[id].len != len || !equal(name, KNOWN[id].text, len)) {
        return PP_H1_NAME_OTHER;
    }
    return id;
}

const char *pp_h1_name_text(uint16_t id)
{
    return id < PP_H1_NAME_COUNT ? KNOWN[id].text : "";
}

size_t pp_h1_name_len(uint16_t id)
{
    return id < PP_H1_NAME_COUNT ? KNOWN[id].len : 0;
}

enum pp_h1_hop pp_h1_hop_find(const uint8_t *name, size_t len)
{
#define PP_H1_HOP_IS_(ident, text) \
    if (PP_H1_IS_WORD(name, len, text)) { \
        return PP_H1_HOP_##ident; \
    }
    PP_H1_HOPS(PP_H1_HOP_IS_)
#undef PP_H1_HOP_IS_
    return PP_H1_HOP_NONE;
}
