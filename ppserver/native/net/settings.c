/* A loop's own copy of what its settings point to. */
#include "net/loop_impl.h"

#include <string.h>

/* A name and its value share one allocation, the name first. */
static void field_free(struct pp_out_field *field)
{
    pp_mem_free((void *)(uintptr_t)field->name, field->name_len + field->value_len + 1);
}

static void fields_free(struct pp_out_field *fields, size_t count)
{
    if (fields == NULL) {
        return;
    }
    for (size_t i = 0; i < count; i++) {
        field_free(&fields[i]);
    }
    pp_mem_free(fields, count * sizeof *fields);
}

int pp_settings_copy(struct pp_settings *to, const struct pp_settings *from)
{
    to->extra_fields = NULL;
    to->extra_count = 0;
    if (from->extra_count == 0) {
        return PP_OK;
    }
    struct pp_out_field *fields = pp_mem_zalloc(from->extra_count * sizeof *fields);
    if (fields == NULL) {
        return PP_ERR_NO_MEMORY;
    }
    for (size_t i = 0; i < from->extra_count; i++) {
        const struct pp_out_field *f = &from->extra_fields[i];
        uint8_t *text = pp_mem_alloc(f->name_len + f->value_len + 1);
        if (text == NULL) {
            for (size_t k = 0; k < i; k++) {
                field_free(&fields[k]);
            }
            pp_mem_free(fields, from->extra_count * sizeof *fields);
            return PP_ERR_NO_MEMORY;
        }
        memcpy(text, f->name, f->name_len);
        memcpy(text + f->name_len, f->value, f->value_len);
        fields[i] = (struct pp_out_field){.name = text,
                                          .name_len = f->name_len,
                                          .value = text + f->name_len,
                                          .value_len = f->value_len};
    }
    to->extra_fields = fields;
    to->extra_count = from->extra_count;
    return PP_OK;
}

void pp_settings_free(struct pp_settings *settings)
{
    fields_free((struct pp_out_field *)(uintptr_t)settings->extra_fields, settings->extra_count);
    pp_trusted_free((struct pp_trusted *)(uintptr_t)settings->trusted);
}
