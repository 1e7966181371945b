"""Streams served over HTTP while they are made: one (`LiveServer`), or many on workers (`http_app`)."""

from .broadcast import Broadcast
from .server import LiveServer

__all__ = ["Broadcast", "LiveServer"]
