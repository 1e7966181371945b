"""The ``batch`` command: many videos from a table of jobs, here one after another or by workers on a Ray cluster."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from ..batch.jobs import FOLDERS, Job, Plan, plan_jobs
from ..batch.local import run_here
from ..batch.manifest import Manifest
from ..batch.table import read_table
from ..batch.work import Made, Progress, remove_state
from ..errors import AvatarError, with_flags
from ..recording.files import FolderInUseError, RecordingFolder
from .batch_columns import OWN, check_row, flags_like, row_parser, values_given, with_columns
from .options import SpeakOptions, parsed
from .speak import make_video, say

if TYPE_CHECKING:
    from ..batch.progress_bar import BatchBar
    from ..pipeline.avatar import Avatar
    from ..pipeline.avatar_options import AvatarOptions

log = logging.getLogger(__name__)
BATCH = """Make many talking videos from a table: a CSV file with a header, or a JSONL file with an object a line. Its
columns are portrait, voice, and the options of speak (size, seed, ...) but state, resume and report. Started again, it
makes what is left."""


def add_batch_flags(command: argparse.ArgumentParser) -> None:
    """The table, the folder, the workers, and the options of `speak` for all rows."""
    command.add_argument("jobs", metavar="JOBS", type=Path, help="the table, *.csv or *.jsonl; paths may be globs")
    command.add_argument("--out", required=True, metavar="DIR", type=Path, help="the folder of the videos")
    command.add_argument("--keep-states", action="store_true", help="keep the state folders of finished videos")
    cluster = command.add_argument_group("cluster", "workers on a Ray cluster, which share the folders of all files")
    cluster.add_argument(
        "--ray", metavar="ADDRESS", help="address of the cluster, HOST:PORT or auto; local: start one here"
    )
    cluster.add_argument("--cpus-per-job", type=float, default=1.0, help="processor cores of a worker; default 1")
    cluster.add_argument(
        "--gpus-per-job", type=float, help="GPUs of a worker, or a fraction such as 0.5; default: 1 where there are any"
    )
    cluster.add_argument("--workers", type=int, help="most workers; default: as many as the cluster holds")
    cluster.add_argument("--retries", type=int, default=3, help="how often a job may lose its worker; default 3")
    words = "options of speak for all rows; a column of the same name overrides one"
    flags_like(command, row_parser(), (*OWN, "out", "plot"), words)
    command.add_argument(
        "--plot", dest="row_plot", action="store_true", default=argparse.SUPPRESS, help="draw each report as a picture"
    )


def batch(args: argparse.Namespace) -> None:
    """``joyavatar batch``: plan, make what is left, say what became of each row. Raises AvatarError for bad input."""
    if args.workers is not None and args.workers < 1:
        raise AvatarError(f"--workers is {args.workers}; give a number from 1.")
    if args.retries < 0:
        raise AvatarError(f"--retries is {args.retries}; give a number from 0.")
    defaults = values_given(args)
    rows = [with_columns(row, defaults) for row in read_table(args.jobs)]
    out = args.out.expanduser().absolute()
    plan = plan_jobs(rows, out, check_row)
    if not plan.jobs and len(set(plan.problems.values())) == 1:
        raise AvatarError(f"{args.jobs.name}: {plan.problems.popitem()[1]}")
    make_folders(out)
    lock = RecordingFolder(out / "states")
    lock.lock()
    try:
        manifest = Manifest(out / "manifest.json")
        run_plan(args, plan, manifest)
    finally:
        lock.unlock()
    problems = len(plan.problems) + sum(manifest.jobs[job.name]["status"] == "failed" for job in plan.jobs)
    if problems:
        raise AvatarError(f"{problems} of {len(plan.jobs) + len(plan.problems)} jobs failed; {manifest.path} says why.")


def run_plan(args: argparse.Namespace, plan: Plan, manifest: Manifest) -> None:
    """Make what is left of a plan, and print its summary however that ends."""
    from ..batch.progress_bar import BatchBar
    from ..batch.summary import summary

    left = manifest.begin(plan)
    if not args.keep_states:
        for job in plan.jobs:
            if job not in left and job.state.is_dir():
                remove_state(job.state)
    try:
        with BatchBar(len(plan.jobs), len(plan.jobs) - len(left)) as bar:
            for number, problem in plan.problems.items():
                bar.say(f"row {number}: {problem}")
            if left and args.ray:
                run_there(args, left, manifest, bar)
            else:
                run_here(left, VideoMaker(), manifest, bar, args.keep_states)
    finally:
        for line in summary(plan, manifest, len(plan.jobs) - len(left)):
            say(line)


def run_there(args: argparse.Namespace, left: list[Job], manifest: Manifest, bar: BatchBar) -> None:
    """Make jobs on a Ray cluster."""
    from ..batch.cluster import WorkerResources, connected
    from ..batch.ray_pool import RayPool

    with connected(args.ray) as ray:
        available = ray.cluster_resources()
        resources = WorkerResources(args.cpus_per_job, args.gpus_per_job).on(available)
        workers = min(resources.fits(available), args.workers or len(left), len(left))
        log.info("%d workers with %g CPUs and %g GPUs each", workers, resources.cpus, resources.gpus)
        options = {"retries": args.retries, "keep_states": args.keep_states}
        RayPool(ray, VideoMaker, resources, workers, manifest, bar, **options).run(left)


def make_folders(out: Path) -> None:
    """The batch's folder and those in it. Raises AvatarError where they cannot be made."""
    try:
        for folder in (out, *(out / name for name in FOLDERS)):
            folder.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise AvatarError(f"The folder '{out}' cannot be used: {problem.strerror}; choose another --out.") from None


class VideoMaker:
    """Makes one video after another as `speak` does; the avatar stays loaded while the jobs want the same."""

    def __init__(self) -> None:
        self._options: AvatarOptions | None = None
        self._avatar: Avatar | None = None

    def __call__(self, flags: tuple[str, ...], progress: Progress) -> Made:
        args = row_parser().parse_args(flags)
        try:
            options = parsed(SpeakOptions, args)
            voice = options.check()
            report = make_video(options, voice, self._loaded(options.avatar), progress)
        except FolderInUseError:
            raise
        except AvatarError as problem:
            raise AvatarError(with_flags(problem, args)) from None
        return Made(report.frames, report.frames / float(report.fps))

    def _loaded(self, options: AvatarOptions) -> Avatar:
        from ..pipeline.avatar import load_avatar

        if options != self._options:
            self._options = self._avatar = None  # two need not fit into memory
            self._avatar = load_avatar(options)
            self._options = options
        return self._avatar
