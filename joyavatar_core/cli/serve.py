"""The ``serve`` command: many live sessions, on workers of a Ray cluster behind one HTTP server."""

from __future__ import annotations

import argparse
import contextlib
import logging
import threading
from functools import partial
from typing import Any

from ..batch.cluster import LOCAL, WorkerResources, connected
from ..errors import AvatarError
from .batch_columns import flags_given, flags_like
from .options import check_free, parse_address
from .session_streams import FROM_VIEWERS, SAMPLE, AvatarStreams, session_options, session_parser

log = logging.getLogger(__name__)
SERVE = """Serve live sessions: each has a portrait and a voice of its own, sent over HTTP, and a video that is watched
while the voice is spoken. Every worker loads the avatar once. Where no worker has room, the answer is 503 and says
so."""
NOT_SERVED = ("portrait", "audio", "report", "plot")  # a session's own, or without a place to go
BUSIEST = 10_000  # requests at once; the sessions are the limit that counts


def add_serve_flags(command: argparse.ArgumentParser) -> None:
    """Where it listens, the workers, and the flags of the avatar."""
    command.add_argument(
        "--serve", default="8000", metavar="[HOST:]PORT", help="where to listen; default 127.0.0.1:8000"
    )
    command.add_argument(
        "--allow-host", action="append", default=[], metavar="NAME", help="a host name the server may be asked for by"
    )
    command.add_argument("--sessions", type=int, default=1, help="most sessions on one worker; default 1")
    command.add_argument("--viewers", type=int, default=8, help="most viewers of one session; default 8")
    command.add_argument(
        "--patience", type=float, default=60.0, metavar="SECONDS", help="wait for the first viewer; default 60"
    )
    command.add_argument(
        "--linger", type=float, default=5.0, metavar="SECONDS",
        help="from the last viewer's leaving to the end of the session; default 5",
    )  # fmt: skip
    cluster = command.add_argument_group("cluster")
    cluster.add_argument(
        "--ray", default="local", metavar="ADDRESS", help="HOST:PORT or auto; default local: start one"
    )
    cluster.add_argument("--workers", type=int, help="most workers; default: as many as the cluster holds")
    cluster.add_argument("--cpus-per-worker", type=float, default=1.0, help="default 1")
    cluster.add_argument("--gpus-per-worker", type=float, help="may be a fraction; default: 1 where there are any")
    flags_like(command, session_parser(), NOT_SERVED, f"of every session; its own are {', '.join(FROM_VIEWERS)}")


def serve(args: argparse.Namespace) -> None:
    """``joyavatar serve``: until Ctrl-C. Raises AvatarError for bad input."""
    host, port = parse_address(args.serve)
    for name in ("sessions", "viewers", "workers"):
        if getattr(args, name) is not None and getattr(args, name) < 1:
            raise AvatarError(f"The number of {name} is {getattr(args, name)}; give one from 1.", name)
    if args.sessions > 1 and vars(args).get("row_cuda_graphs"):
        raise AvatarError("CUDA graphs are captured for one session at a time; leave one out.", "sessions")
    flags = flags_given(args, session_parser())
    if args.ray == LOCAL:  # the workers are on this machine and see what it sees
        options = session_options(flags, SAMPLE, {})
        options.check_all_but_voice()
        options.check_settings()
        check_free(host, port, "sessions")
    else:
        session_parser().parse_args([*flags, "--portrait=-", "--audio=-"])
    with connected(args.ray) as ray, contextlib.ExitStack() as stack:
        available = ray.cluster_resources()
        resources = WorkerResources(args.cpus_per_worker, args.gpus_per_worker).on(available)
        workers = min(resources.fits(available), args.workers or resources.fits(available))
        settings = {
            "new_streams": partial(AvatarStreams, flags), "workers": workers, "sessions": args.sessions,
            "cpus": resources.cpus, "gpus": resources.gpus, "max_viewers": args.viewers, "patience": args.patience,
            "linger": args.linger,
        }  # fmt: skip
        stack.enter_context(deployed(host, port, tuple(args.allow_host), settings))
        log.info("%d workers with %d sessions each; open one with POST http://%s:%d/sessions",
                 workers, args.sessions, host, port)  # fmt: skip
        threading.Event().wait()


@contextlib.contextmanager
def deployed(host: str, port: int, names: tuple[str, ...], settings: dict[str, Any]):
    """Ray Serve runs the HTTP side at host and port meanwhile."""
    from ray import serve as ray_serve

    def build() -> Any:
        from ..serving.http_app import application
        from ..serving.ray_workers import RayWorkers

        return application(RayWorkers(**settings), port, host, names)

    @ray_serve.deployment(name="front", num_replicas=1, max_ongoing_requests=BUSIEST, ray_actor_options={"num_cpus": 0})
    @ray_serve.ingress(build)
    class Front:
        """The application, which holds the workers."""

    quiet = {"log_level": "WARNING"}
    try:
        ray_serve.start(http_options={"host": host, "port": port}, logging_config=quiet)
        ray_serve.run(Front.bind(), name="joyavatar", route_prefix="/", logging_config=quiet)
    except RuntimeError as problem:
        ray_serve.shutdown()
        reason = str(problem).strip().splitlines()[0]
        raise AvatarError(f"The sessions cannot be served at {host}:{port} ({reason}); choose another port.") from None
    try:
        yield
    finally:
        ray_serve.shutdown()
