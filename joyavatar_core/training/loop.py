"""The training loop: resumable after a kill at any moment, with EMA weights, a cosine schedule and a progress bar."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict, set_state_dict
from torch.optim import AdamW
from tqdm import tqdm

from ..errors import AvatarError
from ..paths import replacing
from .parallel import Share, gathered, spread
from .parameters import parameter_groups

# A step's batch and noise come from generators of its own, so a resumed run sees what an unbroken one would have seen.
Draw = Callable[..., list[torch.Generator]]  # size of the batch, salt = 0 -> a generator for each of this process's
StepLoss = Callable[[int, Draw], Mapping[str, Tensor]]  # must hold "loss", a mean over samples

CHECKPOINT = "checkpoint.pt"
FOREVER = 10**9  # steps
FINAL_RATE = 0.03  # share of the peak learning rate
EMA_WARMUP = 10
WHOLE = StateDictOptions(full_state_dict=True)  # one file, whether or not the weights are sharded


@dataclass(frozen=True)
class LoopSettings:
    """How long and how fast to train; `steps` and `minutes` are both limits, whichever comes first ends the run.

    origin: description of the initial weights. A checkpoint of another origin is refused.
    by_inputs: see `parameter_groups`.
    ema: decay of the averaged weights; save_seconds: at most this much is lost by a kill; beta2: Adam's.
    device: where the model trains. read_every: steps whose losses wait on the device until they are read together, so
    that the host need not wait for every step (on a CPU it waits anyway).
    """

    folder: Path
    steps: int = FOREVER
    minutes: float = math.inf
    learning_rate: float = 1.5e-3
    warmup: int = 100
    beta2: float = 0.99
    by_inputs: bool = False
    weight_decay: float = 0.01
    clip: float = 1.0
    ema: float = 0.998
    seed: int = 0
    resume: bool = True
    save_seconds: float = 60.0
    origin: str = ""
    log_every: int = 20
    device: str = "cpu"
    read_every: int = 20

    @property
    def checkpoint(self) -> Path:
        """The path of the state that a resumed run needs."""
        return self.folder / CHECKPOINT


class Trainer:
    """Model, averaged weights and optimizer of one run folder.

    Life cycle: made (and resumed from the folder's checkpoint, if any) -> `run` until the limit -> `averaged` weights.
    """

    def __init__(self, model: nn.Module, settings: LoopSettings) -> None:
        self.model, self.settings, self.share = model, settings, Share.mine()
        self.step, self.seconds = 0, 0.0
        self.ema = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
        groups = parameter_groups(model, settings.weight_decay, settings.by_inputs)
        self.optimizer = AdamW(groups, betas=(0.9, settings.beta2), fused=True)
        if settings.resume and settings.checkpoint.exists():
            self._resume()

    def run(self, step_loss: StepLoss) -> None:
        """Train until the limit. On Ctrl+C it saves first."""
        settings = self.settings
        settings.folder.mkdir(parents=True, exist_ok=True)
        leads = self.share.leads
        losses = Losses(self.share, _open_log(settings.folder) if leads else None, settings)
        last, saved = time.monotonic(), self.seconds
        total = settings.steps if settings.steps < FOREVER else None
        bar = tqdm(total=total, initial=self.step, desc=settings.folder.name, mininterval=5, disable=not leads)
        try:
            while self.progress < 1:
                rate = self.rate
                values = self._update(step_loss)
                now = time.monotonic()
                # One clock for all processes: they must agree on the rate and on when to stop.
                self.seconds, last = self.seconds + self.share.average([now - last])[0], now
                losses.add(self.step, values, {"rate": rate, "minutes": self.seconds / 60})
                bar.set_postfix(loss=losses.text, refresh=False)
                bar.update()
                if self.seconds - saved > settings.save_seconds:
                    self.save()
                    saved = self.seconds
            losses.read()
        finally:
            bar.close()
            if self.share.world == 1 or self.progress >= 1:  # saving waits for all processes, which may wait elsewhere
                self.save()

    def averaged(self) -> dict[str, Tensor]:
        """The averaged weights, whole, on the CPU. All processes call it."""
        return {name: gathered(tensor).cpu() for name, tensor in self.ema.items()}

    @property
    def progress(self) -> float:
        """Share of the run that is done, by steps or by minutes."""
        return max(self.step / self.settings.steps, self.seconds / 60 / self.settings.minutes)

    @property
    def rate(self) -> float:
        """The learning rate of the next step."""
        cosine = (1 + math.cos(math.pi * min(1.0, self.progress))) / 2
        warm = min(1.0, (self.step + 1) / max(1, self.settings.warmup))
        return self.settings.learning_rate * warm * (FINAL_RATE + (1 - FINAL_RATE) * cosine)

    def save(self) -> None:
        """Write everything the next step depends on to one file, atomically. All processes call it."""
        model, optimizer = get_state_dict(self.model, self.optimizer, options=WHOLE)
        ema = self.averaged()
        if self.share.leads:
            state = {
                "model": model,
                "ema": ema,
                "optimizer": optimizer,
                "step": self.step,
                "seconds": self.seconds,
                "origin": self.settings.origin,
            }
            self.settings.folder.mkdir(parents=True, exist_ok=True)
            with replacing(self.settings.checkpoint, shared=True) as unfinished:
                torch.save(state, unfinished)
        self.share.wait()

    def _resume(self) -> None:
        state = torch.load(self.settings.checkpoint, map_location="cpu", weights_only=True)
        if state.get("origin", "") != self.settings.origin:
            raise AvatarError(
                f"'{self.settings.folder}' holds a run that began from {state.get('origin') or 'nothing'}, not from "
                f"{self.settings.origin or 'nothing'}; choose another folder, or start anew.",
                "runs",
                "no_resume",
            )
        set_state_dict(
            self.model, self.optimizer, model_state_dict=state["model"], optim_state_dict=state["optimizer"],
            options=WHOLE,
        )  # fmt: skip
        self.ema = {name: spread(state["ema"][name], like) for name, like in self.ema.items()}
        self.step, self.seconds = state["step"], state["seconds"]

    def draws(self, step: int) -> Draw:
        """What gives a step's generators."""
        return lambda batch, salt=0: self.share.generators(self.settings.seed, step, batch, salt)

    def _update(self, step_loss: StepLoss) -> Mapping[str, Tensor]:
        settings = self.settings
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate * group["scale"]
        losses = step_loss(self.step, self.draws(self.step))
        losses["loss"].backward()
        self.share.average_gradients(self.model)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), settings.clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        decay = min(settings.ema, self.step / (EMA_WARMUP + self.step))
        state = self.model.state_dict()
        torch._foreach_lerp_(list(self.ema.values()), [state[name].detach() for name in self.ema], 1 - decay)
        return {name: value.detach() for name, value in losses.items()}


class Losses:
    """The losses of the steps since they were last read: smoothed for the bar, and for the log every so many steps."""

    def __init__(self, share: Share, log: Callable | None, settings: LoopSettings) -> None:
        self.share, self.log, self.every = share, log, settings.log_every
        self.most = 1 if settings.device == "cpu" else settings.read_every
        self.smooth: float | None = None
        self._waiting: list[tuple[int, Mapping[str, Tensor], dict[str, float]]] = []

    @property
    def text(self) -> str:
        return "" if self.smooth is None else f"{self.smooth:.4f}"

    def add(self, step: int, values: Mapping[str, Tensor], facts: dict[str, float]) -> None:
        """The losses of a step, on their device, and what else the log says of it."""
        self._waiting.append((step, values, facts))
        if len(self._waiting) >= self.most:
            self.read()

    def read(self) -> None:
        """Wait for the device and read its losses. All processes call it."""
        if not self._waiting:
            return
        flat = torch.stack([value.float() for _, values, _ in self._waiting for value in values.values()]).tolist()
        means = iter(self.share.average(flat))
        for step, values, facts in self._waiting:
            losses = {name: next(means) for name in values}
            self.smooth = losses["loss"] if self.smooth is None else 0.98 * self.smooth + 0.02 * losses["loss"]
            if self.log and step % self.every == 0:
                self.log(step, {"smooth": self.smooth, **facts} | losses)
        self._waiting = []


def averaged_weights(folder: Path) -> dict[str, Tensor]:
    """The EMA weights of a run folder. Raises AvatarError where nothing has been trained."""
    if not (folder / CHECKPOINT).exists():
        raise AvatarError(f"'{folder}' holds no training run; train it first.")
    return torch.load(folder / CHECKPOINT, map_location="cpu", weights_only=True)["ema"]


def _open_log(folder: Path) -> Callable[[int, Mapping[str, object]], None]:
    """Scalars to TensorBoard where it is installed, and always to a text file."""
    try:
        from torch.utils.tensorboard import SummaryWriter

        writer = SummaryWriter(str(folder))
    except ImportError:
        writer = None

    def log(step: int, values: Mapping[str, object]) -> None:
        numbers = {name: float(value) for name, value in values.items()}
        with (folder / "log.tsv").open("a") as file:
            file.write(f"{step}\t" + "\t".join(f"{name}={number:.5g}" for name, number in numbers.items()) + "\n")
        if writer is not None:
            for name, number in numbers.items():
                writer.add_scalar(name, number, step)

    return log
