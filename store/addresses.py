"""Which addresses the service may call on a user's behalf.

A user who names a URL must not reach through it what only the service can reach: its own host, its private
network, or a cloud's metadata server. Whether an address is public is therefore decided by the registries of
special-purpose addresses, not by the name it came from, and an IPv4 address that hides in an IPv6 one is
judged as what it is.

References
----------
RFC 6890 and the IANA registries of special-purpose IPv4 and IPv6 addresses; RFC 6052 for NAT64.
"""

import socket
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_NOT_PUBLIC_IPV4 = tuple(
    IPv4Network(text)
    for text in (
        "0.0.0.0/8",  # this network
        "10.0.0.0/8",
        "100.64.0.0/10",  # behind a carrier's NAT; one cloud's metadata server
        "127.0.0.0/8",
        "168.63.129.16/32",  # one cloud's metadata server, though in a public range
        "169.254.0.0/16",  # link-local; the metadata server of most clouds
        "172.16.0.0/12",
        "192.0.0.0/24",  # protocol assignments; one cloud's metadata server
        "192.0.2.0/24",  # documentation
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, and broadcast
    )
)
_PUBLIC_IPV6 = IPv6Network("2000::/3")
_NOT_PUBLIC_IPV6 = tuple(
    IPv6Network(text)
    for text in (
        "2001::/23",  # protocol assignments, Teredo among them
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4: leads to whatever IPv4 address it holds
        "3fff::/20",  # documentation
    )
)
_NAT64 = IPv6Network("64:ff9b::/96")


def may_be_called(address: Address, allowed_networks: Sequence[Network] = ()) -> bool:
    """Tell whether requests may go to an address.

    Parameters
    ----------
    address
        As the resolver gave it.
    allowed_networks
        Networks that the operator allows although they are not public.
    """
    address = _what_it_is(address)
    return is_public(address) or any(address in network for network in allowed_networks)


def is_public(address: Address) -> bool:
    """Tell whether an address is one of the public internet's."""
    address = _what_it_is(address)
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _NOT_PUBLIC_IPV4)
    return address in _PUBLIC_IPV6 and not any(address in network for network in _NOT_PUBLIC_IPV6)


def literal_address(host: str) -> Address | None:
    """Read a host that is an address and no name, in any form that the resolver takes for one.

    Parameters
    ----------
    host
        ``127.0.0.1``, but also ``127.1``, ``2130706433`` or ``0x7f000001``; IPv6 without brackets.
    """
    try:
        return ip_address(host)
    except ValueError:
        pass
    try:
        return IPv4Address(socket.inet_aton(host))
    except (OSError, UnicodeEncodeError):
        return None


def parse_networks(text: str) -> list[Network]:
    """Read networks that are separated by commas; `ValueError` where one is none."""
    return [ip_network(part.strip()) for part in text.split(",") if part.strip()]


def _what_it_is(address: Address) -> Address:
    """Unwrap the IPv4 address that an IPv6 address stands for, where it does."""
    if isinstance(address, IPv4Address):
        return address
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    return address
