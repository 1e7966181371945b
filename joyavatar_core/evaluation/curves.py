"""Plots of figures over time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

PANELS = ("mouth_r", "amplitude", "drift", "colour", "sharpness", "motion", "identity")


def plot_windows(series: Mapping[str, Sequence[Mapping[str, float]]], path: Path) -> None:
    """One panel a measure, one line a series of windows, as a PNG."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(len(PANELS), 1, figsize=(9, 1.6 * len(PANELS)), sharex=True, layout="constrained")
    for axis, panel in zip(axes, PANELS, strict=True):
        for name, windows in series.items():
            axis.plot([window["seconds"] for window in windows], [window[panel] for window in windows], label=name)
        axis.set_ylabel(panel)
        axis.grid(alpha=0.3)
    axes[0].legend(loc="upper right", fontsize="small", ncols=4)
    axes[-1].set_xlabel("seconds")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)
    pyplot.close(figure)
