"""The trained parameters, grouped by learning rate and weight decay."""

from __future__ import annotations

import math

from torch import nn

INPUTS = 64  # of a layer that learns at the full rate, where rates are scaled by inputs


def parameter_groups(model: nn.Module, weight_decay: float, by_inputs: bool = False) -> list[dict[str, object]]:
    """The trained parameters by their share of the learning rate; weight decay for matrices and kernels only.

    by_inputs: layers with many inputs learn more slowly, as in muP (arXiv 2203.03466), so that a step of Adam moves
    every layer's output alike; needed if training starts from trained weights.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for parameter in (p for p in model.parameters() if p.requires_grad):
        inputs = math.prod(parameter.shape[1:])
        matrix = parameter.ndim > 1 and parameter.shape[0] > 1 and inputs > 1  # a modulation is [1, 6, dim]
        scale = min(1.0, INPUTS / inputs) if by_inputs and matrix else 1.0
        groups.setdefault((scale, weight_decay if matrix else 0.0), []).append(parameter)
    return [{"params": p, "scale": scale, "weight_decay": decay} for (scale, decay), p in groups.items()]
