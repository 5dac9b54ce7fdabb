/* Intrusive doubly linked list with a sentinel. A node outside any list points to itself. */
#ifndef PP_BASE_LIST_H
#define PP_BASE_LIST_H

#include <stdbool.h>
#include <stddef.h>

struct pp_list {
    struct pp_list *prev, *next;
};

#define PP_CONTAINER(ptr, type, member) ((type *)((char *)(ptr) - offsetof(type, member)))

static inline void pp_list_init(struct pp_list *n)
{
    n->prev = n->next = n;
}
static inline bool pp_list_empty(const struct pp_list *head)
{
    return head->next == head;
}
static inline bool pp_list_linked(const struct pp_list *n)
{
    return n->next != n;
}
static inline void pp_list_push(struct pp_list *head, struct pp_list *n) /* at the end */
{
    n->prev = head->prev;
    n->next = head;
    head->prev->next = n;
    head->prev = n;
}
static inline void pp_list_remove(struct pp_list *n) /* harmless when not linked */
{
    n->prev->next = n->next;
    n->next->prev = n->prev;
    n->prev = n->next = n;
}
static inline struct pp_list *pp_list_pop(struct pp_list *head) /* NULL when empty */
{
    struct pp_list *n = head->next;
    if (n == head) {
        return NULL;
    }
    pp_list_remove(n);
    return n;
}

#endif
