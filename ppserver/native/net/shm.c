/* Shared memory (contract: shm.h): one mapping for each object. A counter takes a page, and so has
 * its cache line to itself; an allocator within pages would save memory where nobody has many, and
 * would need a lock that can be forked while it is held. */
#include "net/shm.h"
#include "net/sys.h"

void *pp_shm_map(size_t bytes)
{
    PP_ASSERT(bytes != 0);
    void *memory =
        pp_sys_mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    return memory == MAP_FAILED ? NULL : memory;
}

void pp_shm_unmap(void *memory, size_t bytes)
{
    if (memory != NULL) {
        PP_CHECK(pp_sys_munmap(memory, bytes) == 0);
    }
}
