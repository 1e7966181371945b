<<<<<<< ours
"""A stream served over HTTP while it is made."""
=======
"""Streams watched over HTTP while they are made: one (`LiveServer`), or many on workers (`front`, `stage`)."""
>>>>>>> theirs

from .broadcast import Broadcast
from .server import LiveServer

__all__ = ["Broadcast", "LiveServer"]
