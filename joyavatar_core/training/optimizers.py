"""What moves the weights: AdamW, and Muon for the matrices inside a transformer's blocks."""

from __future__ import annotations

from torch import nn
from torch.optim import AdamW, Optimizer

INPUTS = 64  # of a layer that learns at the full rate, where rates are scaled by inputs
BLOCKS = "blocks."  # names of a transformer's repeated layers
MUON_DECAY = 0.05


def make_optimizers(
    model: nn.Module, weight_decay: float, beta2: float, by_inputs: bool = False, muon: bool = False
) -> list[Optimizer]:
    """Optimizers that share the trained parameters; each group has a `scale`, its share of the learning rate.

    by_inputs: layers with many inputs learn more slowly, as in muP (arXiv 2203.03466), so that a step of Adam moves
    every layer's output alike; needed where training starts from weights that are worth keeping.
    muon: orthogonal steps (Keller Jordan, 2024) for the blocks' matrices, scaled to Adam's size (arXiv 2502.16982).
    """
    named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    hidden = [parameter for name, parameter in named if muon and name.startswith(BLOCKS) and parameter.ndim == 2]
    taken = {id(parameter) for parameter in hidden}
    rest = parameter_groups([p for _, p in named if id(p) not in taken], weight_decay, by_inputs)
    optimizers: list[Optimizer] = [AdamW(rest, betas=(0.9, beta2), fused=True)]
    if hidden:
        from torch.optim import Muon  # since torch 2.9

        group = {"params": hidden, "scale": 1.0}
        optimizers.append(Muon([group], weight_decay=MUON_DECAY, adjust_lr_fn="match_rms_adamw"))
    return optimizers


def parameter_groups(
    parameters: list[nn.Parameter], weight_decay: float, by_inputs: bool = False
) -> list[dict[str, object]]:
    """Parameters by their share of the learning rate; weight decay for matrices and kernels only."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for parameter in parameters:
        matrix = parameter.ndim > 1 and parameter[0].numel() > 1
        scale = min(1.0, INPUTS / parameter[0].numel()) if by_inputs and matrix else 1.0
        groups.setdefault((scale, weight_decay if matrix else 0.0), []).append(parameter)
    return [{"params": p, "scale": scale, "weight_decay": decay} for (scale, decay), p in groups.items()]
