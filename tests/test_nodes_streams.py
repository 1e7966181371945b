"""The lazy stream and the nodes that pull it, with a stand-in of the host around the real engine."""

from __future__ import annotations

import dataclasses
import json
import logging
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
import torch

from .recordings import same_video

SECONDS, RATE, SIDE = 2.2, 16000, 32
FRAMES = 36  # 2.2 s at 16 frames/s


def reference(channels=16, frames=1, side=SIDE):
    samples = torch.randn(1, channels, frames, side // 8, side // 8, generator=torch.Generator().manual_seed(0))
    return {"samples": samples}


def make_stream(host, **inputs):
    """A stream of four blocks, two steps for the first and one for the others."""
    psb = host.PSBSchedule.execute(2, 1, 2, 1.0, "restart", "2, 1", None)[0]
    given = {"reference": reference(), "voice": host.voice, "preset": "checkpoint", "seed": 3, "psb": psb, **inputs}
    return host.StreamingSampler.execute(host.model, **given)[0]


@pytest.fixture(scope="module")
def whole(host, vae):
    """The stream decoded in one go, [FRAMES, H, W, 3] in 0 ... 1."""
    recipe, run = make_stream(host).recipe, host.pack.joyavatar_core.sampling.run.StreamRun
    latents = torch.cat([block.latents for block in run(recipe)], dim=2)
    decoder = host.pack.nodes.vae.streaming_vae(vae, host.model.model)
    return decoder.decode(latents)[0].permute(1, 2, 3, 0).add(1).div(2)[:FRAMES]


# --- the sampler


def test_making_a_stream_runs_nothing(host, monkeypatch):
    monkeypatch.setattr(type(host.model.model.diffusion_model), "forward", lambda *_, **__: pytest.fail("it ran"))
    stream = make_stream(host)
    assert stream.recipe.num_video_frames == FRAMES and stream.pixel_size == (SIDE, SIDE)


def test_a_stream_is_the_same_at_every_pull(host, whole, vae):
    stream = make_stream(host)
    for _ in range(2):
        images = host.StreamToFrames.execute(stream, "one batch", 1, vae)[0]
        assert torch.equal(images[0], whole)


@pytest.mark.parametrize(
    ("inputs", "sentence"),
    [
        ({"reference": reference(channels=4)}, "expected a Wan2.1 latent"),
        ({"reference": {"samples": torch.zeros(1, 16, 4, 4)}}, "expected a Wan2.1 latent"),
        ({"reference": reference(frames=2)}, "expected a Wan2.1 latent"),
        ({"reference": reference(side=512)}, "more pixels than"),
        ({"reference": reference(side=24)}, "must be even"),
        ({"prompt": [[torch.zeros(1, 5, 77), {}]]}, "prompt's embeddings are"),
    ],
)
def test_the_sampler_says_what_does_not_fit(host, inputs, sentence):
    with pytest.raises(host.error, match=sentence):
        make_stream(host, **inputs)


def test_schedule_nodes_override_the_preset(host):
    continuity = host.Continuity.execute("off", 0, 0.0, "window", 3, 6, "first", 12, None)[0]
    recipe = make_stream(host, continuity=continuity).recipe
    assert recipe.urcr.mode == "window" and recipe.urcr.window == 12 and recipe.psb.steps == (2, 1)
    assert make_stream(host, preset="plain", psb=None).recipe.psb.first is None


def test_memory_of_the_cache_is_announced_to_the_host(host, vae):
    import comfy.model_management as mm

    stream = make_stream(host)
    host.StreamToFrames.execute(stream, "one batch", 1, vae)
    models = {type(patcher.model).__name__ for patcher in mm.loaded[-1]}
    assert models == {"HostAvatar", "StreamingVAE"} and mm.memory[-1] > stream.recipe.cache_bytes


def test_a_second_puller_is_told_that_it_samples_again(host, vae, caplog):
    stream = make_stream(host)
    with caplog.at_level(logging.WARNING):
        host.StreamToLatent.execute(stream)
        assert "anew" not in caplog.text
        host.StreamToLatent.execute(stream)
        assert "JoyAvatar Stream to Latent samples a stream anew" in caplog.text


def test_what_other_nodes_did_without_effect_is_said_on_the_sampler(host, monkeypatch, caplog, pack):
    options = {
        "torch_compile_kwargs": {"backend": "inductor"},  # has an effect
        "model_function_wrapper": {"some": "wrapper"},
        pack.nodes.patcher.LORAS: [(0, 0), (0, 4), (3, 4), (4, 4)],
    }
    for name, value in options.items():
        monkeypatch.setitem(host.model.model_options, name, value)
    make_stream(host)
    said = [record.getMessage() for record in caplog.records]
    assert said[0].startswith("LoRA 1 of 4 changes nothing: it has no layer")
    assert said[1].startswith("LoRA 2 of 4 changes nothing: its layers have other sizes")
    assert said[2].startswith("LoRA 3 of 4 changes 3 of its 4 layers")
    assert said[3] == "model_function_wrapper, set by a node before this one, has no effect on a JoyAvatar model."
    assert len(said) == 4


# --- frames and latents


def test_one_batch_equals_a_whole_decode(host, vae, whole):
    images, fps, audio = host.StreamToFrames.execute(make_stream(host), "one batch", 1, vae).args
    assert len(images) == len(audio) == 1 and fps == 16.0
    assert torch.equal(images[0], whole)
    assert audio[0]["waveform"].shape == (1, 1, round(SECONDS * RATE))


def test_more_frames_than_memory_are_refused_before_the_work(host, vae, monkeypatch):
    import comfy.model_management as mm

    monkeypatch.setattr(mm, "get_total_memory", lambda device: FRAMES * SIDE * SIDE * 3 * 4 - 1)
    sentence = "36 frames of 32x32 take 0 MiB of memory, and this machine has 0 MiB; use JoyAvatar Stream to Video"
    with pytest.raises(host.error, match=sentence):
        host.StreamToFrames.execute(make_stream(host), "one batch", 1, vae)


def resetting_stream(host):
    """A stream that resets before its fourth block: nine positions are three blocks."""
    continuity = host.Continuity.execute("off", 0, 0.0, "rotate", 3, 3, "portrait", 0, None)[0]
    stream = make_stream(host, preset="plain", continuity=continuity)
    short = dataclasses.replace(stream.recipe.config, trained_positions=9)
    stream.recipe = dataclasses.replace(stream.recipe, config=short)
    return stream


@pytest.mark.parametrize(("batching", "lengths"), [("by count", [10, 10, 10, 6]), ("by reset", [33, 3])])
def test_batches_are_the_one_batch_cut_in_pieces(host, vae, batching, lengths):
    images, _, audio = host.StreamToFrames.execute(resetting_stream(host), batching, 10, vae).args
    assert [len(batch) for batch in images] == lengths
    one_batch = host.StreamToFrames.execute(resetting_stream(host), "one batch", 10, vae)[0][0]
    assert torch.equal(torch.cat(images), one_batch)
    sound = torch.cat([piece["waveform"] for piece in audio], dim=-1)
    np.testing.assert_array_equal(sound[0, 0], host.voice.source.read(0, host.voice.source.num_samples))


def test_large_frame_batches_are_announced_before_they_are_made(host, vae, monkeypatch, caplog):
    monkeypatch.setattr(host.pack.nodes.frames, "LARGE", 1)
    from server import PromptServer

    host.StreamToFrames.execute(make_stream(host), "one batch", 1, vae)
    assert f"{FRAMES} frames of {SIDE}x{SIDE} take" in caplog.text
    assert any("MiB" in text for text in PromptServer.instance.texts)


def test_latent_output_decodes_to_the_frames_and_says_how_many_to_keep(host, vae, whole):
    output = host.StreamToLatent.execute(make_stream(host))
    raw, config = output[0]["samples"], host.model.model.config
    video = host.pack.nodes.vae.streaming_vae(vae, host.model.model).decode(host.pack.nodes.vae.from_host(raw, config))
    torch.testing.assert_close(video[0].permute(1, 2, 3, 0).add(1).div(2)[:FRAMES], whole, atol=1e-4, rtol=0)
    assert output.ui["text"][0].endswith(f"keep the first {FRAMES}") and video.shape[2] == 45


# --- video


def to_video(host, vae, prefix="talks/one", **inputs):
    return host.StreamToVideo.execute(inputs.pop("stream", make_stream(host)), prefix, 18, vae, **inputs)


def decoded(path):
    """(pictures, seconds of sound, tags) of a file."""
    with av.open(str(path)) as file:
        tags, sound = dict(file.metadata), file.streams.audio[0]
        seconds = float(sound.duration * sound.time_base) if sound.duration else None
        return [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)], seconds, tags


def test_video_holds_every_frame_and_the_voice(host, vae, whole, output_folder):
    output = to_video(host, vae)
    file = output_folder / "talks" / "one_00001_.mp4"
    assert list(output.ui["images"]) == [{"filename": file.name, "subfolder": "talks", "type": "output"}]
    assert Path(output[0].get_stream_source()) == file
    pictures, seconds, _ = decoded(file)
    assert len(pictures) == FRAMES and seconds == pytest.approx(SECONDS, abs=0.001)
    assert (
        np.abs(np.stack(pictures) / 255 - whole.numpy()).mean() < 0.06
    )  # coloured noise at half the colour resolution


def test_same_seed_gives_the_same_file(host, vae, output_folder):
    for _ in range(2):
        to_video(host, vae)
    assert same_video(*(output_folder / "talks").glob("*.mp4"))


def test_another_sound_replaces_the_voice(host, vae, output_folder):
    to_video(host, vae, audio={"waveform": torch.zeros(1, 2, 8 * 44100), "sample_rate": 44100})
    assert decoded(output_folder / "talks" / "one_00001_.mp4")[1] == pytest.approx(FRAMES / 16, abs=0.001)


@pytest.mark.parametrize("checks", [0, 1])
def test_a_video_that_is_stopped_before_its_first_block_leaves_nothing(
    host, vae, output_folder, monkeypatch, checks
):  # fmt: skip
    import comfy.model_management as mm

    monkeypatch.setattr(mm, "interrupt_after", checks)
    with pytest.raises(mm.InterruptProcessingException):
        to_video(host, vae)
    assert list((output_folder / "talks").iterdir()) == []


def test_an_interrupted_video_is_kept_and_plays_with_its_sound(host, vae, output_folder, monkeypatch):
    import comfy.model_management as mm

    writer = host.pack.joyavatar_core.video.VideoWriter
    write_audio = writer.write_audio

    def write_and_stop(self, samples) -> None:
        write_audio(self, samples)
        monkeypatch.setattr(mm, "interrupt_after", 0)

    monkeypatch.setattr(writer, "write_audio", write_and_stop)
    with pytest.raises(mm.InterruptProcessingException):
        to_video(host, vae)
    left = list((output_folder / "talks").iterdir())
    assert [file.name for file in left] == ["one_00001_.part.mp4"]
    pictures, seconds, _ = decoded(left[0])
    assert len(pictures) in (9, 21, 33) and seconds == pytest.approx(len(pictures) / 16, abs=0.05)


@pytest.mark.parametrize("prefix", ["../out", "a/../../b", "/tmp/out"])
def test_a_prefix_cannot_leave_the_output_folder(host, vae, output_folder, prefix):
    with pytest.raises(host.error, match="leads out of the output folder"):
        to_video(host, vae, prefix)


def test_workflow_travels_in_the_file_unless_the_host_says_no(host, vae, output_folder, monkeypatch):
    import comfy.cli_args

    hidden = SimpleNamespace(unique_id="7", prompt={"1": {"b": 1, "a": 2}}, extra_pnginfo={"workflow": {"nodes": []}})
    monkeypatch.setattr(host.StreamToVideo, "hidden", hidden)
    to_video(host, vae, "with")
    tags = decoded(output_folder / "with_00001_.mp4")[2]
    assert tags["prompt"] == json.dumps(hidden.prompt) and json.loads(tags["workflow"]) == {"nodes": []}
    assert "AI-generated" in tags["comment"]
    monkeypatch.setattr(comfy.cli_args.args, "disable_metadata", True)
    to_video(host, vae, "without")
    assert not {"prompt", "workflow"} & set(decoded(output_folder / "without_00001_.mp4")[2])


def test_progress_ends_full_and_shows_the_picture(host, vae, output_folder):
    import comfy.utils
    from server import PromptServer

    comfy.utils.progress.clear()
    to_video(host, vae)
    values = [value for value, _, _ in comfy.utils.progress]
    assert values == sorted(values) and values[-1] == comfy.utils.progress[-1][1] == 4
    assert comfy.utils.progress[-1][2][1].size == (SIDE, SIDE)
    assert any(text.startswith("block 3 of 4, ") for text in PromptServer.instance.texts)


# --- report


def test_report_of_a_video_is_that_of_its_run(host, vae, output_folder, caplog):
    video = to_video(host, vae)[0]
    plot, text = host.StreamReport.execute(video).args
    assert plot.ndim == 4 and plot.shape[-1] == 3 and plot.std() > 0
    assert text.startswith(f"{FRAMES} frames (0:02) in 4 blocks")
    assert ("not trained" in text) == (not host.model.model.diffusion_model.config.trained)
    assert "anew" not in caplog.text


def test_report_runs_a_stream_that_nobody_has_pulled(host, caplog):
    stream = make_stream(host)
    assert host.StreamReport.execute(stream)[1].startswith(f"{FRAMES} frames")
    host.StreamReport.execute(stream)
    assert stream.pulled_by == ["JoyAvatar Stream Report"]


def test_report_of_a_foreign_video_is_refused(host):
    with pytest.raises(host.error, match="has no report of its run"):
        host.StreamReport.execute(SimpleNamespace())


def test_the_report_card_is_dark_and_draws_a_curve_for_each_number_it_knows(pack):
    from math import sin

    def card(**changes):
        blocks = [
            {"index": index, "seconds": 0.4 + 0.1 * sin(index), "colour": 1.5, "reset": index % 9 == 8, "frames": 12}
            for index in range(40)
        ]
        return pack.nodes.report_card.report_card({"frames": 480, "fps": 16, "blocks": blocks, **changes})

    plain = card()
    assert plain.width == 800 and sum(plain.getpixel((2, 2))) < 150
    red = pack.nodes.plots.MARK
    assert red not in {colour for _, colour in plain.getcolors(1 << 16)}
    assert red in {colour for _, colour in card(warnings=[{"text": "colour"}]).getcolors(1 << 16)}
    one = card(blocks=[{"index": 0, "seconds": 0.4, "reset": False, "frames": 12}])
    assert one.height < plain.height
