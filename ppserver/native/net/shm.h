/* Anonymous memory that a process shares with those forked from it. */
#ifndef PP_NET_SHM_H
#define PP_NET_SHM_H

#include "base/mem.h"

/* Zeroed memory, aligned to a page; NULL with errno when the kernel has none. bytes is not 0.
 * It stays until every process that has it has called pp_shm_unmap or ended. */
void *pp_shm_map(size_t bytes) PP_MUST_USE;
void pp_shm_unmap(void *memory, size_t bytes); /* bytes as it was mapped; NULL is allowed */

#endif
