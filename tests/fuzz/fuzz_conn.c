/* Fuzz target: a whole connection.
 *
 * The first four bytes choose the cuts. The event log of the input in pieces must be the event log
 * of the whole input, with every scan variant. */
#include "fuzz.h"
#include "h1_feed.h"
#include "proto/h1_scan.h"

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    pp_h1_scan_init();
    return 0;
}

static size_t random_cut(void *arg, size_t done, size_t total)
{
    uint32_t *state = arg;
    (void)done;
    (void)total;
    return 1 + fuzz_next(state) % ((fuzz_next(state) & 3) == 0 ? 200 : 7);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct feed_log whole, cut;
    struct pp_h1_scan_variants variants = pp_h1_scan_variants();
    struct pp_h1_limits limits = feed_limits;
    uint32_t state;
    if (size < 4) {
        return 0;
    }
    memcpy(&state, data, 4);
    if (data[0] & 1) {
        limits = (struct pp_h1_limits){60, 200, 6, 30};
    }
    pp_h1_scan = variants.at[0];
    feed_run(data + 4, size - 4, &limits, feed_whole, NULL, &whole);
    for (size_t i = 0; variants.at[i] != NULL; i++) {
        pp_h1_scan = variants.at[i];
        feed_run(data + 4, size - 4, &limits, random_cut, &state, &cut);
        FUZZ_CHECK(whole.len == cut.len && memcmp(whole.text, cut.text, whole.len) == 0);
    }
    return 0;
}
