"""The report of a stream, block by block, as a plot and as text."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from comfy_api.latest import io

from ..joyavatar_core.errors import AvatarError
from ..joyavatar_core.monitoring.report import RunReport, clock_text, read_report
from ..joyavatar_core.monitoring.report_plot import draw_report
from .notes import drawn, title, to_image
from .progress import StreamProgress
from .report_card import report_card
from .stream import HostStream
from .types import OUTPUT, Stream

MOST_LISTED = 200  # resets and warnings


class JoyAvatarStreamReport(io.ComfyNode):
    """Steps, seconds, resets and what the drift monitor measured in every block of a run."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="JoyAvatarStreamReport",
            display_name="JoyAvatar Stream Report",
            category=OUTPUT,
            description="Plots steps, seconds, resets and drift (colour, sharpness, structure, lips) over the whole "
            "run. Connect the VIDEO of JoyAvatar Stream to Video, or of Load Video with one of its files. A stream is "
            "sampled for the report, unless a Stream node has already run it.",
            inputs=[
                io.MultiType.Input(
                    "source",
                    types=[Stream, io.Video],
                    tooltip="The VIDEO of JoyAvatar Stream to Video, one of its files from Load Video, or a stream.",
                ),
            ],
            outputs=[
                io.Image.Output("plot", "plot", tooltip="The plot of the whole run."),
                io.String.Output("text", "text", tooltip="The totals, every warning and every reset, as text."),
            ],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, source: object) -> io.NodeOutput:
        report = source.report if isinstance(source, HostStream) else getattr(source, "report", None)
        if report is None and isinstance(source, HostStream):
            report = sampled(cls, source)
        summary = saved_summary(source) if report is None else report.summary()
        picture, text = draw_report(summary), description(summary)
        return io.NodeOutput(to_image(picture), text, ui=drawn(report_card(summary), cls, text))


def report_file(video: Path) -> Path:
    """The path of a finished video's report, beside the video."""
    return video.with_suffix(".report.json")


def saved_summary(video: object) -> dict[str, Any]:
    """The report beside a video's file. Raises AvatarError if it is missing or not a report."""
    source = video.get_stream_source() if hasattr(video, "get_stream_source") else None
    if not isinstance(source, (str, Path)) or not report_file(Path(source)).is_file():
        raise AvatarError(
            "This video has no report of its run; connect the VIDEO of JoyAvatar Stream to Video, or load a video "
            "that still has its .report.json beside it."
        )
    return read_report(report_file(Path(source)))


def sampled(cls: type[io.ComfyNode], stream: HostStream) -> RunReport:
    """Run a stream for its report alone."""
    report = stream.new_report()
    progress = StreamProgress(stream.recipe, cls.hidden.unique_id)
    with stream.running(title(cls), progress.on_step) as run:
        for block in run:
            report.add(block, block.num_video_frames)
            progress.block_done(block.index)
    stream.report = report
    return report


def summary_line(summary: Mapping[str, Any]) -> str:
    """Length, blocks, pace, resets and warnings of a run."""
    blocks = summary["blocks"]
    spent = sum(block["seconds"] for block in blocks)
    resets = sum(bool(block["reset"]) for block in blocks)
    seconds = summary["frames"] / summary["fps"]
    warned = len(summary.get("warnings", ()))
    return (
        f"{summary['frames']} frames ({clock_text(seconds)}) in {len(blocks)} blocks, sampled in "
        f"{clock_text(spent)} ({seconds / max(spent, 1e-9):.2f} × real time), {resets} resets"
        f"{f', {warned} drift warnings' if warned else ''}"
    )


def in_words(value: object) -> str:
    """A setting, or a mechanism's settings without those that are left open, as a user writes them."""
    if not isinstance(value, Mapping):
        return str(value)
    return ", ".join(f"{name} {setting}" for name, setting in value.items() if setting not in (None, [], ()))


def description(summary: Mapping[str, Any]) -> str:
    """The totals, the settings, every warning and every reset, in words. Raises AvatarError for a report of no run."""
    try:
        lines = [
            summary_line(summary),
            f"weights: {summary['weights']}{'' if summary['trained'] else ' (not trained)'}",
        ]
        lines += [f"{name}: {in_words(value)}" for name, value in summary["settings"].items()]
        lines += [f"drift at {warning['text']}" for warning in summary.get("warnings", [])[:MOST_LISTED]]
        resets = [block["index"] for block in summary["blocks"] if block["reset"]]
    except (KeyError, TypeError, AttributeError, ValueError, ArithmeticError):
        raise AvatarError(
            "This video's report is not one that the JoyAvatar nodes wrote; make the video again."
        ) from None
    more = " …" if len(resets) > MOST_LISTED else ""
    lines.append(f"resets before blocks: {', '.join(map(str, resets[:MOST_LISTED])) or 'none'}{more}")
    return "\n".join(lines)
