/* What h1_scan.c and its SIMD variants share. Private to proto/. */
#ifndef PP_PROTO_H1_SCAN_IMPL_H
#define PP_PROTO_H1_SCAN_IMPL_H

#include "proto/h1_scan.h"

size_t pp_h1_scan_scalar_token(const uint8_t *data, size_t len);
size_t pp_h1_scan_scalar_value(const uint8_t *data, size_t len);
size_t pp_h1_scan_scalar_target(const uint8_t *data, size_t len);

/* The SIMD variants that this processor can run, the best one last; at most `room`. */
size_t pp_h1_scan_native(const struct pp_h1_scan **list, size_t room);

#endif
