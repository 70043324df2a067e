"""Which addresses may be called: judged by what they are, however they are written."""

import ipaddress
from ipaddress import IPv4Address, IPv6Address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.addresses import is_public, literal_address, may_be_called, parse_networks

NOT_PUBLIC = [
    *(
        "0.0.0.0",
        "10.1.2.3",
        "100.64.0.1",
        "100.100.100.200",
        "127.0.0.1",
        "127.255.255.254",
        "169.254.169.254",
    ),
    *(
        "168.63.129.16",
        "172.16.0.1",
        "172.31.255.255",
        "192.0.0.192",
        "192.0.2.1",
        "192.88.99.1",
        "192.168.1.1",
    ),
    *(
        "198.18.0.1",
        "198.51.100.1",
        "203.0.113.1",
        "224.0.0.1",
        "239.255.255.255",
        "240.0.0.1",
        "255.255.255.255",
    ),
    *("::", "::1", "::7f00:1", "fe80::1", "fe80::1%lo", "fec0::1", "fc00::1", "fd00:ec2::254", "ff02::1"),
    *("2001::1", "2001:db8::1", "2002:7f00:1::", "3fff::1", "5f00::1", "100::1", "64:ff9b:1::1", "4000::1"),
    *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::a9fe:a9fe", "64:ff9b::7f00:1"),
]
PUBLIC = [
    "1.1.1.1",
    "8.8.8.8",
    "172.32.0.1",
    "100.128.0.1",
    "192.0.1.1",
    "2606:4700:4700::1111",
    "::ffff:1.1.1.1",
]


@pytest.mark.parametrize("text", NOT_PUBLIC)
def test_what_is_not_of_the_public_internet_is_refused(text: str) -> None:
    assert not may_be_called(ipaddress.ip_address(text))


@pytest.mark.parametrize("text", [*PUBLIC, "64:ff9b::101:101"])
def test_public_addresses_may_be_called(text: str) -> None:
    assert may_be_called(ipaddress.ip_address(text))


@given(st.ip_addresses())
def test_the_standard_library_sees_nothing_private_in_what_is_public(
    address: IPv4Address | IPv6Address,
) -> None:
    if is_public(address) and getattr(address, "ipv4_mapped", None) is None:
        assert not (address.is_private and address not in ip_network("64:ff9b::/96"))
        assert not address.is_loopback
        assert not address.is_link_local
        assert not address.is_multicast
        assert not address.is_unspecified


SPECIAL = st.sampled_from(
    [ip_network(text) for text in ("10.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4")]
)


@given(SPECIAL.flatmap(lambda network: st.ip_addresses(v=4, network=network)))
def test_a_private_address_is_one_in_every_form(address: IPv4Address) -> None:
    number = int(address)
    for text in (str(address), str(number), hex(number), f"0{number >> 24:o}.{number & 0xFFFFFF}"):
        assert literal_address(text) == address
    for wrapped in (
        f"::ffff:{address}",
        f"64:ff9b::{address}",
        f"::{address}",
        f"2002:{number >> 16:x}:{number & 0xFFFF:x}::",
    ):
        assert not may_be_called(IPv6Address(wrapped)), wrapped
    for wrapped in (f"::ffff:{address}", f"64:ff9b::{address}"):
        assert may_be_called(IPv6Address(wrapped), [ip_network(f"{address}/32")])


@given(st.ip_addresses(v=4), st.ip_addresses(v=4))
def test_only_what_lies_in_an_allowed_network_is_excepted(address: IPv4Address, allowed: IPv4Address) -> None:
    network = ip_network(int(allowed))
    assert may_be_called(allowed, [network])
    assert may_be_called(address, [network]) == (may_be_called(address) or address == allowed)


@pytest.mark.parametrize("text", ["example.com", "127.0.0.1.example.com", "", "é", "1.2.3.4.5", "localhost"])
def test_a_name_is_no_address(text: str) -> None:
    assert literal_address(text) is None


def test_networks_are_read_from_a_list() -> None:
    assert parse_networks(" 127.0.0.0/8, ::1/128 ,") == [ip_network("127.0.0.0/8"), ip_network("::1/128")]
    with pytest.raises(ValueError, match="host bits"):
        parse_networks("10.0.0.1/8")
