"""LiveTalk, measured beside us."""

from __future__ import annotations

from .bench import Bench


def peer(bench: Bench) -> None:
    """LiveTalk's own loop over its own model, where a checkout is at hand."""
    if bench.args.peer is None:
        bench.report("LiveTalk", "not measured: no --peer")
        return
    from livetalk_peer import measure  # a file beside gpu.py that its user writes for a checkout of theirs

    for what, value, unit in measure(bench.args.peer, bench.config, bench.size, bench.device):
        bench.report(what, value, unit)
