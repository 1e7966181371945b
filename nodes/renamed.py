"""Renamed nodes: graphs with the old id run as the new one, where the host can replace nodes (0.14 and newer).

An entry holds the arguments of the host's `io.NodeReplace`: old and new id, and which input became which. The host
replaces only ids that no node has, so an input is renamed together with its node's id. It passes on only the inputs in
`input_mapping`, and fails on one of them that a graph lacks: list all required inputs, and no optional ones.
"""

from __future__ import annotations

from typing import Any

import comfy_api.latest
from comfy_api.latest import io

RENAMED: list[dict[str, Any]] = []  # empty: no id or input has been renamed yet


async def register_renamed() -> None:
    """Tell the host about every entry of `RENAMED`; hosts without node replacement are left alone."""
    if not hasattr(io, "NodeReplace"):
        return
    api = comfy_api.latest.ComfyAPI()
    for entry in RENAMED:
        await api.node_replacement.register(io.NodeReplace(**entry))
