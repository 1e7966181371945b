"""Who may ask the live server: no page of another site, and no name that somebody pointed at this machine."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping

LOCAL_NAMES = ("localhost",)


def split_host(text: str) -> tuple[str, int] | None:
    """'127.0.0.1:8090' or '[::1]:8090' -> (host, port); port 80 where there is none; None for what is neither."""
    host, colon, port = text.rpartition(":") if not text.endswith("]") else (text, "", "")
    if not colon:
        host, port = text, "80"
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        if not is_address(host):
            return None
    elif ":" in host:
        return None
    return (host.lower(), int(port)) if port.isascii() and port.isdigit() and len(port) <= 5 and host else None


def is_address(host: str) -> bool:
    """Whether this is a number, not a name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def is_loopback(host: str) -> bool:
    return host in LOCAL_NAMES or (is_address(host) and ipaddress.ip_address(host).is_loopback)


def refusal(headers: Mapping[str, str], port: int, loopback: bool, names: tuple[str, ...] = ()) -> str | None:
    """Why a request is refused, None where it is welcome.

    The Host has to be this server by number, as localhost, or by one of `names`: a name that an attacker's DNS points
    here is none of them. `loopback` servers answer to loopback numbers alone. An Origin has to be the same site, and
    what a browser sends on behalf of another site is refused even without an Origin.
    """
    found = split_host(headers.get("Host") or "")
    if found is None or found[1] != port:
        return "wrong Host"
    host = found[0]
    known = is_loopback(host) if loopback else is_loopback(host) or is_address(host)
    if not known and host not in names:
        return "wrong Host"
    origin = headers.get("Origin")
    if origin is not None:
        scheme, _, rest = origin.partition("://")
        if scheme != "http" or split_host(rest) != found:
            return "wrong Origin"
    if headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin"):
        return "wrong site"
    return None
