"""Access control of the live server, against pages of other sites and against DNS rebinding."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from contextlib import suppress
from urllib.parse import urlsplit

from ..errors import AvatarError

LOCAL_NAMES = ("localhost",)
DEFAULT_PORTS = {"http": 80, "https": 443}


def split_host(text: str, default_port: int = 80) -> tuple[str, int] | None:
    """'127.0.0.1:8090' or '[::1]:8090' -> (canonical host, port); the default where there is none; None for neither."""
    host, colon, port = text.rpartition(":") if not text.endswith("]") else (text, "", "")
    if not colon:
        host, port = text, ""
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        if not is_address(host):
            return None
    elif ":" in host:
        return None
    if port and not (port.isascii() and port.isdigit() and len(port) <= 5):
        return None
    host = canonical(host)
    return (host, int(port) if port else default_port) if host else None


def canonical(host: str) -> str:
    """The canonical form of a name or address: lower case, no dot at the end, IDNA, the short form of IPv6."""
    host = host.lower().removesuffix(".")
    if is_address(host):
        return str(ipaddress.ip_address(host))
    with suppress(UnicodeError):
        host = host.encode("idna").decode("ascii")
    return host


def allowed_name(text: str) -> str:
    """The name in the value of an allowed host: 'NAME', 'NAME:8443', 'https://NAME/', '[::1]:80' -> 'name'.

    Raises AvatarError for what holds no name.
    """
    bare = text.strip()
    rest = urlsplit(bare).netloc if "://" in bare else bare.partition("/")[0]
    found = (canonical(rest), 0) if is_address(rest) else split_host(rest)
    if found is None or "*" in rest or "@" in rest or any(character.isspace() for character in rest):
        raise AvatarError(
            f"The allowed host is '{text}', expected the name that viewers ask for, such as studio.example.",
            "allow_host",
        )
    return found[0]


def is_address(host: str) -> bool:
    """Whether this is an IP address, not a name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def is_loopback(host: str) -> bool:
    return host in LOCAL_NAMES or (is_address(host) and ipaddress.ip_address(host).is_loopback)


def refusal(headers: Mapping[str, str], port: int, loopback: bool, names: Iterable[str] = ()) -> str | None:
    """Why a request is refused, None where it is allowed.

    The Host has to be one of `names` (canonical), on any port, or this server's address or localhost, on its own port.
    A name that an attacker's DNS points here is neither. `loopback` servers accept loopback addresses only. An Origin
    has to be the same site, or one of `names` under http or https on any port, as behind a proxy. A request that a
    browser sends for another site is refused even without an Origin.
    """
    found = split_host(headers.get("Host") or "")
    if found is None:
        return "wrong Host"
    host = found[0]
    own = is_loopback(host) or (is_address(host) and not loopback)
    if host not in names and not (own and found[1] == port):
        return "wrong Host"
    origin = headers.get("Origin")
    if origin is not None:
        scheme, _, rest = origin.partition("://")
        site = split_host(rest, DEFAULT_PORTS[scheme]) if scheme in DEFAULT_PORTS else None
        if site is None or not (site[0] in names or (scheme == "http" and site == found)):
            return "wrong Origin"
    if headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin"):
        return "wrong site"
    return None
