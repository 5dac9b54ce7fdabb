/* Addresses as text. No system call; any thread. */
#ifndef PP_NET_ADDRESS_H
#define PP_NET_ADDRESS_H

#include "net/sys.h"
#include <stddef.h>

#define PP_ADDRESS_TEXT_MAX INET6_ADDRSTRLEN

/* The text of an IP address in text[PP_ADDRESS_TEXT_MAX], with a NUL, and its port. Its length; 0,
 * with port 0 and "", for an address of another family, and for NULL. */
size_t pp_address_text(const struct sockaddr *address, char *text, unsigned *port);

#endif
