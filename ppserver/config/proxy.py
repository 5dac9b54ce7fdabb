"""Trusted proxies: whose forwarded headers are believed.

The C core does the rest (``native/net/forwarded.c``): it takes client and scheme of a request from
``X-Forwarded-For`` and ``X-Forwarded-Proto`` of a trusted peer, and removes such fields from the
requests of everybody else. So the scope, the environ and the access line name the same client.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from ppserver.errors import ConfigError

NETWORKS_MAX = 4096


class TrustedProxies:
    """A set of addresses and networks; ``*`` is everybody, ``unix`` a Unix socket's peer.

    Raises ConfigError for an entry that is none of these, and for more than 4096 networks.
    """

    def __init__(self, entries: Iterable[str]) -> None:
        self.everybody = False
        self.unix = False
        self._networks: list[ipaddress.IPv4Network | ipaddress.IPv6Network] = []
        for entry in entries:
            if entry == "*":
                self.everybody = True
            elif entry == "unix":
                self.unix = True
            else:
                try:
                    self._networks.append(ipaddress.ip_network(entry))
                except ValueError as error:
                    raise ConfigError(f"{error}", setting="forwarded_allow_ips") from None
        if len(self._networks) > NETWORKS_MAX:
            raise ConfigError(f"more than {NETWORKS_MAX} networks", setting="forwarded_allow_ips")

    def packed(self) -> tuple[bool, bool, bytes]:
        """As the Core takes it: everybody, Unix sockets' peers, and 17 bytes for each network,
        its address (IPv4 mapped to IPv6) and the length of its prefix in bits."""
        return self.everybody, self.unix, b"".join(map(_packed, self._networks))


def _packed(network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> bytes:
    address, bits = network.network_address.packed, network.prefixlen
    if network.version == 4:
        address, bits = b"\0" * 10 + b"\xff\xff" + address, bits + 96
    return address + bytes([bits])
