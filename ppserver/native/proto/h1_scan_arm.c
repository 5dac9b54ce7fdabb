/* Class scans for AArch64: NEON, 16 bytes at a time; NEON is part of the architecture.
 *
 * The same two look-ups as in h1_scan_x86.c. There is no move-mask: narrowing by four bits leaves a
 * 64-bit word with four bits per byte, whose trailing zeros tell the place. No load crosses either
 * end of the input. Any thread. */
#include "proto/h1_scan_impl.h"

#ifdef __aarch64__

#include <arm_neon.h>

/* Row = low half of the byte, bit = high half; rows of bytes above 0x7F come out empty. */
static const uint8_t ROWS_OF_TOKEN[16] = {0xe8, 0xfc, 0xf8, 0xfc, 0xfc, 0xfc, 0xfc, 0xfc,
                                          0xf8, 0xf8, 0xf4, 0x54, 0xd0, 0x54, 0xf4, 0x70};
static const uint8_t ROWS_OF_TARGET[16] = {0xf8, 0xfc, 0xfc, 0xf8, 0xfc, 0xfc, 0xfc, 0xfc,
                                           0xfc, 0xfc, 0xfc, 0xfc, 0xfc, 0xfc, 0xfc, 0x7c};
static const uint8_t BIT_OF_HIGH[16] = {1, 2, 4, 8, 16, 32, 64, 128, 0, 0, 0, 0, 0, 0, 0, 0};

/* Four set bits for each byte that is 0xFF in x. */
static inline uint64_t mask_of(uint8x16_t x)
{
    return vget_lane_u64(vreinterpret_u64_u8(vshrn_n_u16(vreinterpretq_u16_u8(x), 4)), 0);
}

static inline uint64_t bad_value(uint8x16_t x)
{
    uint8x16_t bad = vandq_u8(vcltq_u8(x, vdupq_n_u8(0x20)), vmvnq_u8(vceqq_u8(x, vdupq_n_u8(9))));
    return mask_of(vorrq_u8(bad, vceqq_u8(x, vdupq_n_u8(0x7f))));
}

static inline uint64_t bad_rows(uint8x16_t x, const uint8_t *rows)
{
    uint8x16_t row = vqtbl1q_u8(vld1q_u8(rows), vandq_u8(x, vdupq_n_u8(0x0f)));
    uint8x16_t bit = vqtbl1q_u8(vld1q_u8(BIT_OF_HIGH), vshrq_n_u8(x, 4));
    return mask_of(vceqq_u8(vandq_u8(row, bit), vdupq_n_u8(0)));
}

#define SCAN(name, scalar, bad_16) \
    static size_t name(const uint8_t *data, size_t len) \
    { \
        size_t i = 0; \
        if (len < 16) { \
            return scalar(data, len); \
        } \
        for (;;) { \
            uint64_t bad = bad_16(vld1q_u8(data + i)); \
            if (bad != 0) { \
                return i + (unsigned)__builtin_ctzll(bad) / 4; \
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

#define BAD_TOKEN(x) bad_rows((x), ROWS_OF_TOKEN)
#define BAD_TARGET(x) bad_rows((x), ROWS_OF_TARGET)

SCAN(neon_token, pp_h1_scan_scalar_token, BAD_TOKEN)
SCAN(neon_value, pp_h1_scan_scalar_value, bad_value)
SCAN(neon_target, pp_h1_scan_scalar_target, BAD_TARGET)

static const struct pp_h1_scan NEON_SCAN = {"neon", neon_token, neon_value, neon_target};

size_t pp_h1_scan_native(const struct pp_h1_scan **list, size_t room)
{
    if (room == 0) {
        return 0;
    }
    list[0] = &NEON_SCAN;
    return 1;
}

#endif
