"""Stand-in: the host's flags."""

from types import SimpleNamespace

args = SimpleNamespace(disable_metadata=False)
