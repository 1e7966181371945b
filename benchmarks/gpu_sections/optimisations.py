"""One forward pass with each optimisation of the transformer."""

from __future__ import annotations

import contextlib
import copy

import torch
from torch import Tensor

from joyavatar_core.errors import AvatarError
from joyavatar_core.model import pointwise
from joyavatar_core.model.attention import attention_backend, available_backends
from joyavatar_core.model.fp8_linear import keep_in_fp8
from joyavatar_core.model.graphs import GraphedPasses

from .bench import Bench
from .contexts import changed, compiled_steps, packed
from .errors import relative


def optimisations(bench: Bench) -> None:
    """A forward behind 15 remembered frames: as the convolution leaves its strides, and with each optimisation."""
    run = bench.one_pass(15)
    plain, reference = bench.ms(run), run().clone()

    def differs(made: Tensor) -> float:
        return relative(made, reference)

    bench.report("forward, eager", plain, "ms", f"floor {bench.floor(15):.2f} ms")
    hook = bench.model.blocks[0].register_forward_pre_hook(
        lambda _, inputs: (inputs[0].permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1), *inputs[1:])
    )
    try:
        bench.report("forward, residual stream strided", bench.ms(run), "ms", "as before it was made contiguous")
    finally:
        hook.remove()
    with torch.enable_grad():  # writes the padding out
        written = bench.model.encode_text(
            torch.zeros(1, 0, bench.config.text_dim, device=bench.device, dtype=bench.dtype), 512
        )
    bench.report("forward, 512 equal text keys written out", bench.ms(lambda: run(written)), "ms")
    for name, change in variants(bench).items():
        with bench.trying(f"forward, {name}"), change:
            taken = bench.ms(run)
            bench.report(
                f"forward, {name}", taken, "ms", f"{plain / taken:.2f} x eager, differs by {differs(run()):.1e}"
            )
    with bench.trying("forward, weights in fp8"):
        small = copy.deepcopy(bench.model)
        keep_in_fp8(small.blocks)
        with changed(bench, "model", small):
            taken = bench.ms(run)
            note = f"{plain / taken:.2f} x eager, differs by {differs(run()):.1e}"
            bench.report("forward, weights in fp8", taken, "ms", note)
        del small
    if not bench.cuda:
        return
    for name, change in {"graph": contextlib.nullcontext(), "graph of everything": compiled_steps(bench.model)}.items():
        with bench.trying(f"forward, {name}"), change:
            graphs = GraphedPasses(bench.model, run.cache, run.text)
            taken, made = bench.ms(lambda g=graphs: run(graphs=g)), run(graphs=graphs)
            bench.report(
                f"forward, {name}", taken, "ms", f"{plain / taken:.2f} x eager, differs by {differs(made):.1e}"
            )


def variants(bench: Bench) -> dict[str, contextlib.AbstractContextManager]:
    """Each optimisation of the transformer, as a context in which it is on."""
    found = {"q, k, v apart" if bench.cuda else "packed q, k, v": packed(bench.model, not bench.cuda)}
    if bench.cuda:
        found["compiled steps"] = changed(bench.model, "pointwise", pointwise.compiled())
    for name in available_backends():
        if name != "sdpa" and bench.cuda:
            with contextlib.suppress(AvatarError):
                found[f"attention {name}"] = changed(
                    bench.model, "attention", attention_backend(name, bench.device, bench.dtype)
                )
    return found
