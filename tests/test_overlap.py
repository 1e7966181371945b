"""Stages at work at the same time: order, errors, stopping, and that nothing runs further ahead than it may."""

from __future__ import annotations

import signal
import threading
import time
from contextlib import closing

import pytest
import torch

from joyavatar_core.audio import Features
from joyavatar_core.pipeline.overlap import ahead
from joyavatar_core.pipeline.render import frames_of
from joyavatar_core.sampling.mci import CarriedNoise
from joyavatar_core.sampling.noise import CONTEXT, INITIAL, RENOISE, NoiseSource
from joyavatar_core.sampling.noise_ahead import NoiseAhead
from joyavatar_core.sampling.run import StreamRun
from joyavatar_core.vae import VAECache, random_weights_vae
from joyavatar_core.video.portrait import to_uint8

SECONDS = 30.0  # more than any of this takes: only a deadlock waits so long


class Source:
    """Counts what has been asked of it; waits before an item until it is let on."""

    def __init__(self, items: int, fail_at: int | None = None) -> None:
        self.items, self.fail_at, self.asked, self.closed = items, fail_at, 0, False
        self.thread: threading.Thread | None = None

    def __iter__(self):
        return self

    def __next__(self) -> int:
        self.thread = threading.current_thread()
        if self.asked == self.items:
            raise StopIteration
        if self.asked == self.fail_at:
            raise ValueError("item 3 cannot be made")
        self.asked += 1
        return self.asked - 1

    def close(self) -> None:
        self.closed = True


def test_items_come_in_order_from_another_thread():
    source = Source(20)
    assert list(ahead(lambda: source, "test")) == list(range(20))
    assert source.thread is not threading.current_thread() and not source.thread.is_alive()


def test_what_breaks_is_raised_behind_the_items_before_it():
    seen = []
    with pytest.raises(ValueError, match="item 3"):
        for item in ahead(lambda: Source(9, fail_at=3), "test"):
            seen.append(item)
    assert seen == [0, 1, 2]


def test_a_stage_is_never_further_ahead_than_its_queue():
    source, room = Source(50), threading.Event()
    with closing(ahead(lambda: source, "test", depth=2)) as items:
        for item in items:
            room.wait(0.001)
            assert source.asked <= item + 1 + 2 + 1  # this one, two in the queue, one in the thread's hands


def test_closing_ends_the_thread_and_closes_the_source():
    source = Source(10**9)
    items = ahead(lambda: source, "test")
    next(items)
    items.close()
    assert source.closed and not source.thread.is_alive()


def test_ctrl_c_while_the_thread_starts_ends_it_too(monkeypatch):
    start, source = threading.Thread.start, Source(10**9)

    def interrupted(thread):
        start(thread)
        raise KeyboardInterrupt  # it waits for the thread's first moment, and Ctrl-C may come then

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    with pytest.raises(KeyboardInterrupt):
        next(ahead(lambda: source, "test"))
    assert source.closed and not source.thread.is_alive()


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="a signal for one thread needs POSIX")
def test_a_second_ctrl_c_waits_for_the_thread_too() -> None:
    at_work, enough = threading.Event(), threading.Event()

    def items():
        yield 1
        at_work.set()
        enough.wait(SECONDS)

    def press_twice() -> None:
        for _ in range(2):
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
            time.sleep(0.05)
        enough.set()

    made = ahead(items, "long item")
    next(made)
    assert at_work.wait(SECONDS)
    (thread,) = (one for one in threading.enumerate() if one.name == "long item")
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    presses = threading.Timer(0.05, press_twice)
    try:
        presses.start()
        with pytest.raises(KeyboardInterrupt):
            made.close()
    finally:
        presses.join()
        signal.signal(signal.SIGINT, before)
    assert not thread.is_alive()


def test_a_thread_that_cannot_be_made_is_not_waited_for(monkeypatch):
    def refused(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refused)
    began = time.monotonic()
    with pytest.raises(RuntimeError, match="can't start new thread"):
        next(ahead(lambda: Source(3), "test"))
    assert time.monotonic() - began < SECONDS / 2


def test_the_callers_modes_hold_in_the_thread():
    def modes():
        yield torch.is_grad_enabled(), torch.is_inference_mode_enabled()

    assert list(ahead(modes, "test")) == [(True, False)]
    with torch.no_grad():
        assert list(ahead(modes, "test")) == [(False, False)]
    with torch.inference_mode():
        assert list(ahead(modes, "test")) == [(False, True)]


def test_overlapping_gives_the_same_frames(make_stream):
    decoder = random_weights_vae(4)
    stream = make_stream(video_frames=60)
    one, other = ([f for _, f in frames_of(StreamRun(stream), decoder, overlap=x)] for x in (True, False))
    assert len(one) == len(other) == 6
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


class PlainDecoder:
    """Only what the Decoder protocol asks for: every latent frame is four pictures of its first three channels."""

    compute_device, compute_dtype = torch.device("cpu"), torch.float64

    def new_cache(self) -> VAECache:
        return VAECache()

    def decode(self, latents: torch.Tensor, cache: VAECache | None = None) -> torch.Tensor:
        assert latents.dtype == self.compute_dtype
        lead = 0 if "seen" in cache else 3
        cache.keep("seen", latents.movedim(1, -1), 1)
        return latents[:, :3].repeat_interleave(4, dim=2)[:, :, lead:].float().clamp(-1, 1)


def test_anything_that_keeps_the_protocol_is_a_decoder(make_stream):
    frames = [shown for _, shown in frames_of(StreamRun(make_stream(video_frames=30)), PlainDecoder())]
    assert [len(shown) for shown in frames] == [9, 12, 9]
    expected = next(StreamRun(make_stream())).latents[0, :3, 1]
    assert torch.equal(frames[0][1], to_uint8(expected[:, None].clamp(-1, 1))[0])


def test_closing_leaves_a_run_that_goes_on(make_stream):
    """The block that was being made is left, not lost: the run makes it when it is pulled again."""
    whole = [block.latents for block in StreamRun(make_stream(video_frames=96))]
    run = StreamRun(make_stream(video_frames=96))
    inside, go_on = threading.Event(), threading.Event()

    def on_step(block: int, step: int, steps: int) -> None:
        if block == 2 and step == 1 and not go_on.is_set():
            inside.set()
            go_on.wait(SECONDS)

    run.update(on_step=on_step)
    made = frames_of(run, random_weights_vae(4))
    next(made)
    assert inside.wait(SECONDS)
    threading.Timer(0.2, go_on.set).start()
    made.close()
    assert not run.interrupt.is_set()
    assert run.block == 2  # block 2 was left after its first step
    assert torch.equal(next(run).latents, whole[2])


def test_a_waiting_voice_does_not_hold_up_the_end(make_stream):
    class Waiting(Features):
        """The voice of a speaker who says nothing more after two blocks."""

        feature_dim, fps, block_frames, num_video_frames = 6, 16, 3, None

        def wait(self, block: int, timeout: float | None = None) -> bool:
            assert timeout is not None
            waiting.set()
            return block < 2 or bool(threading.Event().wait(timeout))

        def latent_features(self, first: int, count: int) -> torch.Tensor:
            return torch.zeros(count, 4, 6)

    waiting = threading.Event()
    made = frames_of(StreamRun(make_stream(audio=Waiting())), random_weights_vae(4))
    assert [next(made)[0].index for _ in range(2)] == [0, 1]
    made.close()
    assert not [thread for thread in threading.enumerate() if thread.name in ("sampling", "decoding", "refining")]


def test_noise_drawn_ahead_is_the_same_noise():
    shape, source = (1, 16, 3, 4, 4), CarriedNoise(NoiseSource(5), carry=1.0)
    noise = NoiseAhead(source, pin=False)
    for block in (0, 1, 2, 7, 8):  # blocks may be left out, as after a resume
        for role, step in ((INITIAL, 0), (RENOISE, 1), (RENOISE, 2)):
            assert torch.equal(noise.draw(role, block, step, shape), source.draw(role, block, step, shape))
    assert torch.equal(noise.draw(CONTEXT, 3, 0, shape), source.draw(CONTEXT, 3, 0, shape))  # an earlier block again
    noise.close()
