"""Commands under `torchrun`: one process runs the command, the others take part in its avatar's work."""

from __future__ import annotations

import argparse
import logging
import signal

from ..distributed.process_group import Launch, process_group
from ..errors import AvatarError
from .live import live
from .options import LiveOptions, SpeakOptions, parsed
from .speak import speak

OPTIONS = {speak: SpeakOptions, live: LiveOptions}  # commands that several processes can share


def run_command(args: argparse.Namespace) -> None:
    """Run the command of parsed arguments. Raises AvatarError for bad input, in the process that prints."""
    launch = Launch.mine()
    if launch.world == 1:
        if getattr(args, "decode_rank", False):
            raise AvatarError(
                "--decode-rank needs two processes or more; start them with "
                "torchrun --nproc_per_node 2 -m joyavatar_core and the command."
            )
        args.run(args)
        return
    try:
        check_launch(args)
        device = launch.device(args.device)
    except AvatarError:
        if launch.leads:
            raise
        return
    with process_group(gpu=device.type == "cuda"):
        from ..distributed.team import Team

        args.team = Team(device, args.decode_rank)
        if launch.leads:
            try:
                args.run(args)
            finally:
                args.team.end()
        else:
            follow(args)


def check_launch(args: argparse.Namespace) -> None:
    """Raises AvatarError for what only one process can do."""
    if args.run not in OPTIONS:
        raise AvatarError(f"'{args.command}' runs in one process; start it without torchrun.")
    if args.cuda_graphs:
        raise AvatarError("--cuda-graphs works in one process only; leave it out under torchrun.")


def follow(args: argparse.Namespace) -> None:
    """Take part until the leader ends. What goes wrong in the leader, and what is bad input, the leader says."""
    from ..distributed.messages import is_lost
    from ..pipeline.avatar import take_part

    logging.disable()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the leader ends first
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a handler in Python would not run while a message is awaited
    try:
        take_part(parsed(OPTIONS[args.run], args).avatar)
    except AvatarError:
        pass
    except RuntimeError as problem:
        if not is_lost(problem):
            raise
