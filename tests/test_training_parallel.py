"""Training in two processes is the training of one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import distributed, multiprocessing, nn

pytest.importorskip("skia")

from joyavatar_core.distributed.process_group import end_process_group
from joyavatar_core.errors import AvatarError
from joyavatar_core.training.loop import LoopSettings, Trainer, averaged_weights
from joyavatar_core.training.parallel import Share, shard

STEPS = 12


def train(folder, steps: int = STEPS, sharded: bool = False) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.SiLU(), nn.Linear(8, 1))
    if sharded:
        shard(model)

    def loss(step, draw):
        x = torch.stack([torch.randn(4, generator=generator) for generator in draw(6)])
        return {"loss": (model(x) - x.sum(1, keepdim=True)).square().mean()}

    Trainer(model, LoopSettings(folder, steps=steps, warmup=2, log_every=1)).run(loss)


def one_of_two(rank: int, folder, sharded: bool) -> None:
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    for steps in (STEPS // 2, STEPS):  # stopped half-way and resumed
        train(folder / "two", steps, sharded)
    end_process_group()
    threads = {task.read_text().strip() for task in Path("/proc/self/task").glob("*/comm")}
    assert not {"pt_gloo_runloop", "gloo_tcp_loop"} & threads


def losses(folder) -> list[float]:
    lines = (folder / "log.tsv").read_text().splitlines()
    return [float(part.removeprefix("loss=")) for line in lines for part in line.split("\t") if part[:5] == "loss="]


@pytest.mark.parametrize("sharded", [False, True])
def test_two_processes_train_as_one(tmp_path, sharded):
    for steps in (STEPS // 2, STEPS):
        train(tmp_path / "one", steps)
    multiprocessing.spawn(one_of_two, (tmp_path, sharded), nprocs=2)
    assert len(losses(tmp_path / "two")) == STEPS  # one process writes
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=1e-4)
    one, two = (averaged_weights(tmp_path / name) for name in ("one", "two"))
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor)


def test_a_batch_that_cannot_be_shared_is_refused():
    with pytest.raises(AvatarError, match="batch of 3 cannot be shared by 2"):
        Share(0, 2).generators(seed=0, step=0, batch=3)
