"""A stream in two processes is the stream of one: the same latents, states that fit both, frames decoded elsewhere."""

from __future__ import annotations

import dataclasses
import importlib.util
import itertools
import multiprocessing as python_multiprocessing
import os
from pathlib import Path

import pytest
import torch
from torch import Tensor, distributed, multiprocessing

from joyavatar_core.checkpoints.families import AVATARFORCING
from joyavatar_core.config import AvatarConfig
from joyavatar_core.distributed.process_group import end_process_group
from joyavatar_core.distributed.team import Team
from joyavatar_core.errors import AvatarError
from joyavatar_core.model.sequence_parallel import check_ranks
from joyavatar_core.recording.state import read_state, write_state
from joyavatar_core.sampling.mci import MciSettings
from joyavatar_core.sampling.presets import preset
from joyavatar_core.sampling.psb import PsbSettings
from joyavatar_core.sampling.run import StreamRun
from joyavatar_core.sampling.stream import AvatarStream
from joyavatar_core.sampling.urcr import UrcrSettings
from joyavatar_core.vae import TinyDecoder

from .conftest import MINIATURE, RecordedFeatures, build_model

SMALL = dataclasses.replace(MINIATURE, trained_positions=9)  # a reset before block 3
SHORT = dataclasses.replace(MINIATURE, trained_positions=6)  # a reset before block 2
ROLLING = dataclasses.replace(MINIATURE, **AVATARFORCING.behaviour)


@dataclasses.dataclass(frozen=True)
class Lead(RecordedFeatures):
    """A voice for a stream whose portrait stands in front of block 0."""

    block_frames: int = ROLLING.block_frames
    lead: int = 1
    fps: int = ROLLING.fps


@dataclasses.dataclass(frozen=True)
class Case:
    """A stream of the miniature, and how many of its blocks are made."""

    fields: dict
    blocks: int = 4
    size: tuple[int, int] = (4, 4)  # of the latents
    config: AvatarConfig = SMALL

    def stream(self, model: object = None) -> AvatarStream:
        reference = torch.randn(1, 16, 1, *self.size, generator=torch.Generator().manual_seed(5))
        return AvatarStream(
            build_model(self.config) if model is None else model,
            reference,
            **{"audio": RecordedFeatures(), **self.fields},
        )


PROMPT = torch.randn(1, 3, SMALL.text_dim, generator=torch.Generator().manual_seed(6))
MOTION, STEPS = MciSettings("inject", 3, 0.25), PsbSettings(steps=(2, 1))
ROTATE, BRIEF = UrcrSettings("rotate", 3, 3), UrcrSettings("rotate", 0, 3, "first")
START = "forkserver" if "forkserver" in python_multiprocessing.get_all_start_methods() else "spawn"  # Windows
FP8 = "keys and values in 8 bits"
CASES = {
    "joyavatar": Case({"psb": STEPS, "urcr": ROTATE, "mci": MOTION}),
    "prefill": Case(
        {"psb": STEPS, "urcr": UrcrSettings("prefill", 0, 3), "mci": MciSettings("context")}, 3, config=SHORT
    ),
    "sliding window": Case({"psb": STEPS, "urcr": UrcrSettings("window", 3, 0, "first", 6)}, 3),
    "prompt, bands of 7 and 8 tokens": Case({"psb": STEPS, "urcr": ROTATE, "text": PROMPT}, 2, (6, 10)),
    "one token, an empty band": Case({"psb": STEPS, "urcr": ROTATE}, 1, (2, 2)),
    "rolling": Case({"urcr": preset("rolling", ROLLING).urcr, "audio": Lead(), "video_frames": 54}, 3, config=ROLLING),
    FP8: Case({"psb": STEPS, "urcr": BRIEF, "kv_dtype": torch.float8_e4m3fn}, 3, config=SHORT),
}
RESUMED = {"joyavatar": 3, "rolling": 2, FP8: 2}  # case -> the block before which a state is taken


def play(stream: AvatarStream, blocks: int, states: Path | None, name: str, load: Path | None = None) -> Tensor:
    """Latents of a stream's blocks. A state is written on the way, or read and gone on from."""
    at, run = RESUMED.get(name), StreamRun(stream)
    latents = []
    if load is not None:
        run.load_state_dict(read_state(load / f"{name}.safetensors", 1 << 30))
        blocks -= at
    for block in itertools.islice(run, blocks):
        latents.append(block.latents)
        if states is not None and run.block == at:
            write_state(states / f"{name}.safetensors", run.state_dict(copy=False))
    return torch.cat(latents, dim=2)


def member(rank: int, world: int, folder: Path, decode_rank: bool, lead: object) -> None:
    """One process of a team; the leader runs `lead(team, folder)`, which may give the others a part."""
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=world)
    torch.set_num_threads(1)
    team = Team(torch.device("cpu"), decode_rank)
    lead(team, folder)
    team.end()
    end_process_group()


def two_processes(folder: Path, decode_rank: bool, lead: object) -> None:
    """Run `member` twice, in children of a process that has imported this file once."""
    if START == "forkserver":
        python_multiprocessing.set_forkserver_preload([__name__])
    arguments = (2, folder, decode_rank, lead)
    multiprocessing.start_processes(member, arguments, nprocs=2, start_method=START)


def share_passes(team: Team, folder: Path) -> None:
    """Every case in the team; results into files."""
    team.ready()
    for config in (SMALL, SHORT, ROLLING):
        model = build_model(config).requires_grad_(False)
        if not team.leads:
            team.follow(model)
            continue
        shared = team.share(model)
        for name, case in CASES.items():
            if case.config is not config:
                continue
            stream = case.stream(shared)
            result = {"latents": play(stream, case.blocks, folder, name), "bytes": StreamRun(stream).cache.nbytes}
            if name in RESUMED:
                result["resumed"] = play(stream, case.blocks, None, name, load=folder / "one")
            torch.save(result, folder / f"{name}.pt")
        team.end()


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> tuple[dict[str, Tensor], Path]:
    folder = tmp_path_factory.mktemp("processes")
    (folder / "one").mkdir()
    return {name: play(case.stream(), case.blocks, folder / "one", name) for name, case in CASES.items()}, folder


@pytest.fixture(scope="module")
def together(alone) -> dict[str, dict]:
    folder = alone[1]
    two_processes(folder, False, share_passes)
    return {name: torch.load(folder / f"{name}.pt", weights_only=True) for name in CASES}


def assert_same(name: str, ours: Tensor, single: Tensor) -> None:
    """To 1e-5; where 8 bits round a difference up, to what such roundings make of it."""
    tolerance = 5e-2 if name == FP8 else 1e-5
    torch.testing.assert_close(ours, single, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", CASES)
def test_two_processes_make_the_latents_of_one(alone, together, name):
    single = alone[0][name]
    assert single.std() > 0.1
    assert_same(name, together[name]["latents"], single)


@pytest.mark.parametrize("name", CASES)
def test_each_process_keeps_half_of_the_keys_and_values(together, name):
    case = CASES[name]
    assert 2 * together[name]["bytes"] == case.stream().cache_bytes


@pytest.mark.parametrize("name", RESUMED)
def test_states_fit_any_number_of_processes(alone, together, name):
    single, folder = alone
    assert_same(name, together[name]["resumed"], single[name][:, :, -together[name]["resumed"].shape[2] :])
    case = CASES[name]
    assert_same(name, play(case.stream(), case.blocks, None, name, load=folder), together[name]["resumed"])


def tiny_decoder() -> TinyDecoder:
    """Seeded weights, a few channels."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        return TinyDecoder((8, 8, 4, 4)).eval().requires_grad_(False)


def pieces() -> list[Tensor]:
    """Two blocks of latents."""
    return list(torch.randn(1, 16, 6, 4, 4, generator=torch.Generator().manual_seed(7)).split(3, dim=2))


@torch.no_grad()
def decode_elsewhere(team: Team, folder: Path) -> None:
    """The leader asks for two streams' frames, one of them resumed from the state of the other."""
    team.ready()
    if team.decodes:
        team.follow(tiny_decoder())
        return
    decoder = team.decode_there(tiny_decoder())
    first, second = pieces()
    cache, resumed = decoder.new_cache(), decoder.new_cache()
    frames = [decoder.decode(first, cache)]
    resumed.load_state_dict(cache.state_dict())
    frames.append(decoder.decode(second, cache))
    torch.save([*frames, decoder.decode(second, resumed)], folder / "frames.pt")


@torch.no_grad()
def test_frames_from_the_decoding_process_have_the_same_bits(tmp_path):
    two_processes(tmp_path, True, decode_elsewhere)
    decoder = tiny_decoder()
    cache = decoder.new_cache()
    first, second = (decoder.decode(latents, cache) for latents in pieces())
    for got, expected in zip(
        torch.load(tmp_path / "frames.pt", weights_only=True), (first, second, second), strict=True
    ):
        assert torch.equal(got, expected)


def count_bytes(team: Team, folder: Path) -> None:
    """The leader counts the exchanges of block 1, where MCI injects 2 frames, and the bytes that leave it."""
    team.ready()
    model = build_model(SMALL).requires_grad_(False)
    if not team.leads:
        team.follow(model)
        return
    sent, exchange = [], distributed.all_to_all_single

    def counted(received: Tensor, x: Tensor, taken: list[int], given: list[int], **named: object) -> None:
        sent.append(sum(given[1:]) * x.itemsize)
        exchange(received, x, taken, given, **named)

    run = StreamRun(CASES["joyavatar"].stream(team.share(model)))
    next(run)
    distributed.all_to_all_single = counted
    next(run)
    (folder / "sent").write_text(f"{sum(sent)} {len(sent)}")


def test_a_block_exchanges_as_many_bytes_as_the_benchmark_says(tmp_path):
    two_processes(tmp_path, False, count_bytes)
    script = Path(__file__).parents[1] / "benchmarks" / "exchange_bytes.py"
    spec = importlib.util.spec_from_file_location("exchange_bytes", script)
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    sent, count = map(int, (tmp_path / "sent").read_text().split())
    assert 2 * sent == benchmark.sent_bytes(SMALL, 4, ranks=2, steps=1, injected=2, itemsize=4)
    assert count == benchmark.exchanges(SMALL, steps=1, injected=2)


def lose(team: Team, folder: Path) -> None:
    """The follower ends without a word; the leader writes what it is told."""
    team.ready()
    if not team.leads:
        os._exit(0)
    model = team.share(build_model(SMALL).requires_grad_(False))
    with pytest.raises(AvatarError) as problem:
        next(StreamRun(Case({}, 1).stream(model)))
    (folder / "said").write_text(str(problem.value))


def cannot_load(team: Team, folder: Path) -> None:
    """One process has no part; all of them hear why."""
    try:
        team.ready("" if team.leads else "'own.safetensors' is not there.")
    except AvatarError as problem:
        (folder / f"said {team.rank}").write_text(str(problem))


def test_a_lost_process_is_one_sentence(tmp_path):
    two_processes(tmp_path, False, lose)
    assert "Another process of this run has ended" in (tmp_path / "said").read_text()


def test_all_processes_hear_why_one_cannot_take_part(tmp_path):
    two_processes(tmp_path, False, cannot_load)
    for rank in range(2):
        assert (tmp_path / f"said {rank}").read_text() == "Process 1 cannot take part: 'own.safetensors' is not there."


@pytest.mark.parametrize(("heads", "ranks", "said"), [
    (12, 5, "2, 3, 4, 6 or 12"), (12, 24, "2, 3, 4, 6 or 12"), (3, 2, "with 3 processes"), (1, 2, "with 1 processes"),
])  # fmt: skip
def test_processes_that_cannot_share_the_heads_are_refused(heads, ranks, said):
    with pytest.raises(AvatarError, match=f"{ranks} processes cannot share the {heads} heads") as problem:
        check_ranks(heads, ranks)
    assert said in str(problem.value)


@pytest.mark.parametrize("ranks", [1, 2, 3, 4, 6, 12])
def test_the_divisors_of_the_heads_may_share(ranks):
    check_ranks(12, ranks)
