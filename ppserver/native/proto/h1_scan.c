/* Class scans: the scalar reference, the byte class tables, and the choice made at start-up.
 *
 * The variants live in h1_scan_x86.c and h1_scan_arm.c and are chosen once by what the processor
 * says. pp_h1_scan is a pointer that leaves its first value at most once, so any thread may read it
 * at any time. Leaves out: short inputs, which callers look at themselves before calling. */
#include "proto/h1_scan.h"

#include <stdbool.h>

#include "proto/h1_class.h"
#include "proto/h1_scan_impl.h"

#define T PP_H1_TCHAR
#define V PP_H1_VALUE
#define R PP_H1_TARGET
#define H PP_H1_HOST

const uint8_t pp_h1_class[256] = {
    ['\t'] = V,
    [' '] = V,
    ['!'] = T | V | R | H,
    ['"'] = V | R,
    ['#'] = T | V,
    ['$'] = T | V | R | H,
    ['%'] = T | V | R,
    ['&'] = T | V | R | H,
    ['\''] = T | V | R | H,
    ['('] = V | R | H,
    [')'] = V | R | H,
    ['*'] = T | V | R | H,
    ['+'] = T | V | R | H,
    [','] = V | R | H,
    ['-'] = T | V | R | H,
    ['.'] = T | V | R | H,
    ['/'] = V | R,
    ['0' ... '9'] = T | V | R | H,
    [':'] = V | R,
    [';'] = V | R | H,
    ['<'] = V | R,
    ['='] = V | R | H,
    ['>'] = V | R,
    ['?'] = V | R,
    ['@'] = V | R,
    ['A' ... 'Z'] = T | V | R | H,
    ['['] = V | R,
    ['\\'] = V | R,
    [']'] = V | R,
    ['^'] = T | V | R,
    ['_'] = T | V | R | H,
    ['`'] = T | V | R,
    ['a' ... 'z'] = T | V | R | H,
    ['{'] = V | R,
    ['|'] = T | V | R,
    ['}'] = V | R,
    ['~'] = T | V | R | H,
    [0x80 ... 0xff] = V,
};

#undef T
#undef V
#undef R
#undef H

#define UP(upper, lower) [upper] = lower
const uint8_t pp_h1_lower[256] = {
    ['!'] = '!',  ['#'] = '#',  ['$'] = '$',  ['%'] = '%',  ['&'] = '&',  ['\''] = '\'',
    ['*'] = '*',  ['+'] = '+',  ['-'] = '-',  ['.'] = '.',  ['^'] = '^',  ['_'] = '_',
    ['`'] = '`',  ['|'] = '|',  ['~'] = '~',  ['0'] = '0',  ['1'] = '1',  ['2'] = '2',
    ['3'] = '3',  ['4'] = '4',  ['5'] = '5',  ['6'] = '6',  ['7'] = '7',  ['8'] = '8',
    ['9'] = '9',  UP('a', 'a'), UP('b', 'b'), UP('c', 'c'), UP('d', 'd'), UP('e', 'e'),
    UP('f', 'f'), UP('g', 'g'), UP('h', 'h'), UP('i', 'i'), UP('j', 'j'), UP('k', 'k'),
    UP('l', 'l'), UP('m', 'm'), UP('n', 'n'), UP('o', 'o'), UP('p', 'p'), UP('q', 'q'),
    UP('r', 'r'), UP('s', 's'), UP('t', 't'), UP('u', 'u'), UP('v', 'v'), UP('w', 'w'),
    UP('x', 'x'), UP('y', 'y'), UP('z', 'z'), UP('A', 'a'), UP('B', 'b'), UP('C', 'c'),
    UP('D', 'd'), UP('E', 'e'), UP('F', 'f'), UP('G', 'g'), UP('H', 'h'), UP('I', 'i'),
    UP('J', 'j'), UP('K', 'k'), UP('L', 'l'), UP('M', 'm'), UP('N', 'n'), UP('O', 'o'),
    UP('P', 'p'), UP('Q', 'q'), UP('R', 'r'), UP('S', 's'), UP('T', 't'), UP('U', 'u'),
    UP('V', 'v'), UP('W', 'w'), UP('X', 'x'), UP('Y', 'y'), UP('Z', 'z'),
};
#undef UP

static size_t scan(const uint8_t *data, size_t len, unsigned classes)
{
    size_t i = 0;
    while (i < len && pp_h1_is(data[i], classes)) {
        i++;
    }
    return i;
}

size_t pp_h1_scan_scalar_token(const uint8_t *data, size_t len)
{
    return scan(data, len, PP_H1_TCHAR);
}

size_t pp_h1_scan_scalar_value(const uint8_t *data, size_t len)
{
    return scan(data, len, PP_H1_VALUE);
}

size_t pp_h1_scan_scalar_target(const uint8_t *data, size_t len)
{
    return scan(data, len, PP_H1_TARGET);
}

static const struct pp_h1_scan SCALAR = {"scalar", pp_h1_scan_scalar_token, pp_h1_scan_scalar_value,
                                         pp_h1_scan_scalar_target};

const struct pp_h1_scan *pp_h1_scan = &SCALAR;

#if !defined(__x86_64__) && !defined(__aarch64__)
size_t pp_h1_scan_native(const struct pp_h1_scan **list, size_t room)
{
    (void)list;
    (void)room;
    return 0;
}
#endif

struct pp_h1_scan_variants pp_h1_scan_variants(void)
{
    struct pp_h1_scan_variants found = {{&SCALAR}};
    (void)pp_h1_scan_native(found.at + 1, PP_H1_SCAN_VARIANTS_MAX - 1);
    return found;
}

void pp_h1_scan_init(void)
{
    const struct pp_h1_scan *variants[PP_H1_SCAN_VARIANTS_MAX];
    size_t count = pp_h1_scan_native(variants, PP_H1_SCAN_VARIANTS_MAX);
    if (count == 0) {
        return;
    }
    /* One of those who come at once writes; the others see what it wrote before they go on. */
    const struct pp_h1_scan *expected = &SCALAR;
    (void)__atomic_compare_exchange_n(&pp_h1_scan, &expected, variants[count - 1], false,
                                      __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
}
