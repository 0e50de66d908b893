"""Which machines a picture may be fetched from."""

import ipaddress
import socket

TRANSLATED = ipaddress.ip_network("64:ff9b::/96")  # NAT64: the last 32 bits are an address of IPv4


def is_public(address: str) -> bool:
    """Whether an IP address is one of the public internet: not this machine, its own network, or set apart.

    >>> [is_public(each) for each in ("8.8.8.8", "127.0.0.1", "169.254.169.254", "::ffff:10.0.0.1", "fe80::1%2")]
    [True, False, False, False, False]
    """
    found = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address):
        inner = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF) if found in TRANSLATED else None
        inner = inner or found.ipv4_mapped or found.sixtofour
        if inner is not None:
            return is_public(str(inner))
        if found.is_reserved or found.is_site_local:
            return False
    return found.is_global and not found.is_multicast


def public_addresses(host: str, port: int) -> list[str]:
    """The IP addresses of a host, in whatever way it is written.

    Raises:
        OSError: it has none.
        ValueError: one of them is not public.
    """
    addresses = [str(each[4][0]) for each in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    for address in addresses:
        if not is_public(address):
            what = host if host == address else f"{host} is {address}, and that"
            raise ValueError(
                f"{what} is an address of this machine or its network, from which nothing is fetched unless told: "
                "seeless run --allow-private-urls, in Python load_image(..., allow_private=True)"
            )
    return addresses


def connect_to_public(
    address: tuple[str, int], timeout: float | None = None, source_address: tuple[str, int] | None = None
) -> socket.socket:
    """`socket.create_connection` that goes to public addresses only, and to those that were looked at."""
    host, port = address
    failed: OSError = OSError(f"{host} has no address")
    for each in public_addresses(host, port):
        try:
            return socket.create_connection((each, port), timeout, source_address)
        except OSError as error:
            failed = error
    raise failed
