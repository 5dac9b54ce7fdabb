/* Delimiter and class scans over raw bytes: a scalar reference and SIMD variants proven equal.
 *
 * Each function returns the index of the first byte of data[0, len) that is NOT in the class, or
 * len. No variant reads outside data[0, len): tests put the end flush against an unreadable page.
 */
#ifndef PP_PROTO_H1_SCAN_H
#define PP_PROTO_H1_SCAN_H

#include <stddef.h>
#include <stdint.h>

struct pp_h1_scan {
    const char *name;                                 /* "scalar", "sse42", "avx2", "neon" */
    size_t (*token)(const uint8_t *data, size_t len); /* tchar, RFC 9110 5.6.2 */
    size_t (*value)(const uint8_t *data, size_t len); /* HTAB, SP, VCHAR, obs-text */
    size_t (*target)(const uint8_t *data,
                     size_t len); /* VCHAR without "#": 0x21..0x7E; no obs-text */
};

/* The best the processor offers; chosen by pp_h1_scan_init (idempotent, thread-safe, called by the
 * module and by tests; the scalar one until then). It is written once in a process at most, and
 * whoever has called pp_h1_scan_init may read it without ceremony. */
extern const struct pp_h1_scan *pp_h1_scan;
void pp_h1_scan_init(void);

/* All variants this processor can run, the scalar one first, the best one last, then NULL. */
#define PP_H1_SCAN_VARIANTS_MAX 3
struct pp_h1_scan_variants {
    const struct pp_h1_scan *at[PP_H1_SCAN_VARIANTS_MAX + 1];
};
struct pp_h1_scan_variants pp_h1_scan_variants(void);

#endif
