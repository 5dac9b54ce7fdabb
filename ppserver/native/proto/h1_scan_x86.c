/* Class scans for x86-64: none yet, the scalar reference serves. */
#include "proto/h1_scan_impl.h"

size_t pp_h1_scan_native(const struct pp_h1_scan **list, size_t room)
{
    (void)list;
    (void)room;
    return 0;
}
