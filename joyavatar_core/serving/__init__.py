"""A stream served over HTTP while it is made."""

from .broadcast import Broadcast
from .server import LiveServer

__all__ = ["Broadcast", "LiveServer"]
