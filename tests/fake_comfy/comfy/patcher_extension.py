"""Stand-in: the names of a patcher's callbacks."""

from types import SimpleNamespace

CallbacksMP = SimpleNamespace(ON_LOAD="on_load")
