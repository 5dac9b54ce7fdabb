/* Fuzz target: every scan variant against the scalar one, from every place of the input. */
#include "fuzz.h"
#include "proto/h1_scan.h"

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct pp_h1_scan_variants variants = pp_h1_scan_variants();
    uint8_t *copy = fuzz_copy(data, size);
    size_t step = size > 256 ? size / 128 : 1;
    for (size_t at = 0; at < size; at += step) {
        size_t token = variants.at[0]->token(copy + at, size - at);
        size_t value = variants.at[0]->value(copy + at, size - at);
        size_t target = variants.at[0]->target(copy + at, size - at);
        for (size_t i = 1; variants.at[i] != NULL; i++) {
            FUZZ_CHECK(variants.at[i]->token(copy + at, size - at) == token);
            FUZZ_CHECK(variants.at[i]->value(copy + at, size - at) == value);
            FUZZ_CHECK(variants.at[i]->target(copy + at, size - at) == target);
        }
    }
    free(copy);
    return 0;
}
