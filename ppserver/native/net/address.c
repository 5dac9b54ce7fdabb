/* Addresses as text (contract: address.h). */
#include "net/address.h"
#include "net/sys.h"

#include <string.h>

#include "base/text.h"

size_t pp_address_text(const struct sockaddr *address, char *text, unsigned *port)
{
    size_t n = 0;
    *port = 0;
    if (address != NULL && address->sa_family == AF_INET) {
        /* inet_ntop formats by printf, and this is for every line of an access log. */
        const struct sockaddr_in *in = (const struct sockaddr_in *)(const void *)address;
        const uint8_t *octets = (const uint8_t *)&in->sin_addr.s_addr;
        for (int i = 0; i < 4; i++) {
            n += pp_text_put_decimal((uint8_t *)text + n, octets[i]);
            text[n++] = '.';
        }
        n--; /* behind the last one comes the NUL */
        *port = ntohs(in->sin_port);
    } else if (address != NULL && address->sa_family == AF_INET6) {
        const struct sockaddr_in6 *in = (const struct sockaddr_in6 *)(const void *)address;
        if (inet_ntop(AF_INET6, &in->sin6_addr, text, PP_ADDRESS_TEXT_MAX) != NULL) {
            n = strlen(text);
            *port = ntohs(in->sin6_port);
        }
    }
    text[n] = '\0';
    return n;
}
