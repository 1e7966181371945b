"""What a stream did, block by block, as a plot and as text."""

from __future__ import annotations

from comfy_api.latest import io
from PIL import Image

from ..joyavatar_core.errors import AvatarError
from ..joyavatar_core.report import RunReport
from .notes import drawn, title, to_image
from .plots import chart, stacked
from .progress import StreamProgress, clock_text
from .stream import HostStream
from .types import OUTPUT, Stream

MOST_RESETS = 200  # that are listed


class JoyAvatarStreamReport(io.ComfyNode):
    """Steps, resets, positions and seconds of every block of a run."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="JoyAvatarStreamReport",
            display_name="JoyAvatar Stream Report",
            category=OUTPUT,
            description="Plots steps, positions, resets and seconds of every block. Wire the VIDEO of JoyAvatar Stream "
            "to Video to see that run; a stream that was not pulled before is sampled for the report.",
            inputs=[
                io.MultiType.Input(
                    "source",
                    types=[Stream, io.Video],
                    tooltip="The VIDEO of JoyAvatar Stream to Video, or a stream.",
                ),
            ],
            outputs=[
                io.Image.Output("plot", "plot", tooltip="The plot, over the whole run."),
                io.String.Output("text", "text", tooltip="The totals and every reset, in words."),
            ],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, source: object) -> io.NodeOutput:
        report = source.report if isinstance(source, HostStream) else getattr(source, "report", None)
        if report is None and isinstance(source, HostStream):
            report = sampled(cls, source)
        if report is None:
            raise AvatarError(
                "This video does not know how it was made; wire the VIDEO output of JoyAvatar Stream to Video directly."
            )
        picture, text = plot(report), description(report)
        return io.NodeOutput(to_image(picture), text, ui=drawn(picture, cls, text))


def sampled(cls: type[io.ComfyNode], stream: HostStream) -> RunReport:
    """Run a stream for its report alone."""
    report = stream.new_report()
    progress = StreamProgress(stream.recipe, cls.hidden.unique_id)
    with stream.running(title(cls), progress.on_step) as run:
        for block in run:
            report.add(block, block.num_frames)
            progress.block_done(block.index)
    stream.report = report
    return report


def summary_line(report: RunReport) -> str:
    """Length, blocks, pace and resets of a run."""
    spent = sum(block["seconds"] for block in report.blocks)
    resets = sum(block["reset"] for block in report.blocks)
    seconds = report.frames / float(report.fps)
    return (
        f"{report.frames} frames ({clock_text(seconds)}) in {len(report.blocks)} blocks, sampled in "
        f"{clock_text(spent)} ({seconds / max(spent, 1e-9):.2f} × real time), {resets} resets"
    )


def description(report: RunReport) -> str:
    """The totals, the settings and every reset, in words."""
    lines = [summary_line(report), f"weights: {report.weights}{'' if report.trained else ' (not trained)'}"]
    lines += [f"{name}: {value}" for name, value in report.settings.items()]
    resets = [block["index"] for block in report.blocks if block["reset"]]
    more = " …" if len(resets) > MOST_RESETS else ""
    lines.append(f"resets before blocks: {', '.join(map(str, resets[:MOST_RESETS])) or 'none'}{more}")
    return "\n".join(lines)


def plot(report: RunReport) -> Image.Image:
    """Steps, highest position and seconds of every block, resets marked."""
    columns = {name: [block[name] for block in report.blocks] for name in ("steps", "max_position", "seconds")}
    resets = [block["index"] for block in report.blocks if block["reset"]]
    charts = [
        chart("denoising steps", columns["steps"], bars=True),
        chart("highest temporal position, resets in red", columns["max_position"], resets),
        chart("seconds a block", columns["seconds"], resets),
    ]
    return stacked(charts)
