/* Counters of one loop (contract: stats.h). */
#include "net/stats.h"

#include "base/assert.h"

void pp_stats_error(struct pp_counters *counters, int code)
{
    int index = pp_err_index(code);
    PP_ASSERT(index >= 0);
    if (index >= 0) {
        pp_stats_add(&counters->errors[index], 1);
    }
}

void pp_stats_response(struct pp_counters *counters, int status)
{
    int class_index = status / 100;
    /* 600..999 are allowed to applications and count with "none". */
    pp_stats_add(&counters->responses[class_index >= 1 && class_index <= 5 ? class_index : 0], 1);
}
