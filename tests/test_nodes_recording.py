"""Stream to Video with a state folder: stopped, queued again, refused; and what its report knows afterwards."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch

from .recordings import same_video
from .test_nodes_streams import FRAMES, decoded, make_stream, reference

EVERY = {"state": "talks/state", "checkpoint_every": "1"}  # four blocks, four segments


def to_video(host, vae, prefix="one", **inputs):
    inputs = {**EVERY, **inputs}
    return host.StreamToVideo.execute(inputs.pop("stream", None) or make_stream(host), prefix, 18, vae, **inputs)


def stop_after(monkeypatch, checks):
    import comfy.model_management as mm

    monkeypatch.setattr(mm, "interrupt_after", checks)
    return pytest.raises(mm.InterruptProcessingException)


def begin(host, vae, monkeypatch, **inputs):
    """A recording that is stopped in its first block."""
    with stop_after(monkeypatch, 4):
        to_video(host, vae, **inputs)


def test_the_encoder_that_is_chosen_writes_the_file_and_one_that_is_missing_is_said_first(
    host, vae, output_folder, monkeypatch
):
    h264, asked = host.pack.joyavatar_core.video.h264, []
    monkeypatch.setitem(h264.CODECS, "nvenc", "libx264")
    monkeypatch.setattr(h264, "nvenc_options", lambda options: asked.append("nvenc") or dict(options))
    monkeypatch.setattr(h264, "encodes", lambda *_: True)
    for state in ("", "talks/state"):
        for encoder, used in (("auto", not state), ("x264", False), ("nvenc", True)):
            asked.clear()
            to_video(host, vae, state=state and f"{state}-{encoder}", encoder=encoder)
            assert bool(asked) == used, (state, encoder)
    monkeypatch.setattr(h264, "encodes", lambda *_: False)
    monkeypatch.setattr(type(host.model.model.diffusion_model), "forward", lambda *_, **__: pytest.fail("it ran"))
    with pytest.raises(host.error, match="NVIDIA's encoder does not encode"):
        to_video(host, vae, encoder="nvenc")


@pytest.mark.parametrize("checks", [1, 15])
def test_stopped_and_queued_again_it_is_the_uninterrupted_file(host, vae, output_folder, monkeypatch, caplog, checks):
    from server import PromptServer

    with stop_after(monkeypatch, checks):
        to_video(host, vae)
    assert not list(output_folder.glob("*.mp4"))
    segments = sorted((output_folder / "talks" / "state").glob("segment-????????.mp4"))
    for segment in segments:
        assert decoded(segment)[0]
    PromptServer.instance.texts.clear()
    report = to_video(host, vae)[0].report
    assert [block["index"] for block in report.blocks] == [0, 1, 2, 3] and report.frames == FRAMES
    assert any("resumed at" in text for text in PromptServer.instance.texts) == bool(segments)
    assert ("queue it again to resume at" in caplog.text) == (checks > 1)
    to_video(host, vae, state="other")  # uninterrupted
    assert same_video(*output_folder.glob("one_*.mp4"))


def test_a_finished_recording_gives_its_file_again_and_samples_nothing(host, vae, output_folder, monkeypatch):
    to_video(host, vae)
    monkeypatch.setattr(type(host.model.model.diffusion_model), "forward", lambda *_, **__: pytest.fail("it ran"))
    video = to_video(host, vae)[0]
    first, second = sorted(output_folder.glob("one_*.mp4"))
    assert first.read_bytes() == second.read_bytes() and len(video.report.blocks) == 4


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (lambda host: {"stream": make_stream(host, seed=4)}, "seed 3 and this run has 4"),
        (lambda host: {"stream": make_stream(host, reference=reference(side=48))}, "another portrait"),
        (lambda host: {"checkpoint_every": "2"}, "checkpoint every 1 and this run has 2"),
        (lambda host: {"audio": {"waveform": torch.zeros(1, 1, 99999), "sample_rate": 16000}}, "another voice"),
    ],
)
def test_another_run_in_the_same_folder_is_refused_in_a_sentence(
    host, vae, output_folder, monkeypatch, changes, sentence
):
    begin(host, vae, monkeypatch)
    with pytest.raises(host.error, match=sentence):
        to_video(host, vae, **changes(host))


def test_another_vae_is_refused(host, vae, output_folder, monkeypatch):
    begin(host, vae, monkeypatch)
    other = type(vae)()
    other.get_sd = lambda: host.pack.joyavatar_core.vae.random_state_dict(8, seed=1)
    with pytest.raises(host.error, match="another decoder"):
        to_video(host, other)


def test_another_driving_voice_is_refused_though_the_sound_is_the_same(host, vae, output_folder, monkeypatch):
    audio = {"waveform": torch.zeros(1, 1, 99999), "sample_rate": 16000}
    begin(host, vae, monkeypatch, audio=audio)
    wave = torch.cos(torch.arange(round(2.2 * 16000)) * 0.05) * 0.3
    voice = host.AudioEncode.execute({"waveform": wave[None, None], "sample_rate": 16000}, host.model, 0.0)[0]
    with pytest.raises(host.error, match="another driving voice"):
        to_video(host, vae, stream=make_stream(host, voice=voice), audio=audio)


@pytest.mark.parametrize(
    "name", ["..", ".", "../out", "a/../../b", "/tmp/out", "link/inside", "link", "a\0b", "x" * 999]
)
def test_a_state_folder_stays_below_the_output_folder(host, vae, output_folder, tmp_path, name):
    output_folder.mkdir(exist_ok=True)
    (output_folder / "link").symlink_to(tmp_path, target_is_directory=True)
    with pytest.raises(host.error, match=r"^The state folder .*; (give|choose) a"):
        to_video(host, vae, state=name)
    assert {path.name for path in tmp_path.iterdir()} <= {"output"}


def test_an_interval_that_is_none_is_refused_before_the_work(host, vae, output_folder):
    with pytest.raises(host.error, match="interval between states is 'often'"):
        to_video(host, vae, checkpoint_every="often")


def test_the_monitor_measures_and_its_warning_stands_on_the_node(host, vae, output_folder, monkeypatch):
    from server import PromptServer

    monitor = host.pack.joyavatar_core.monitoring.drift_monitor
    monkeypatch.setattr(monitor, "WINDOW_SECONDS", 0.5)
    monkeypatch.setattr(monitor, "SETTLED_SECONDS", 0.1)
    monkeypatch.setattr(monitor, "LIMITS", {"sharpness": monitor.Limit(-1.0, 0, "it is {now:.2f}")})
    monkeypatch.setattr(monitor, "SPREADS", 0.0)
    PromptServer.instance.texts.clear()
    report = to_video(host, vae, state="")[0].report
    assert {"colour", "sharpness", "distance", "correlation"} <= set(report.blocks[-1])
    assert report.more["warnings"] and any("drift at" in text for text in PromptServer.instance.texts)
    assert "drift at" in host.StreamReport.execute(SimpleNamespace(report=report))[1]


# --- reports that outlive their process


def test_the_report_beside_a_file_serves_a_video_loaded_later(host, vae, output_folder):
    from comfy_api.latest import InputImpl

    to_video(host, vae, state="")
    loaded = InputImpl.VideoFromFile(str(output_folder / "one_00001_.mp4"))
    plot, text = host.StreamReport.execute(loaded).args
    assert text.startswith(f"{FRAMES} frames") and plot.std() > 0


@pytest.mark.parametrize(
    "forged", ["", "[]", '{"blocks": 5}', '{"blocks": [{}]}', '{"blocks": [], "frames": "x"}', "[" * 9999]
)
def test_a_forged_report_gets_one_sentence(host, vae, output_folder, forged):
    from comfy_api.latest import InputImpl

    output_folder.mkdir(exist_ok=True)
    (output_folder / "v.report.json").write_text(forged)
    with pytest.raises(host.error, match=r"report.*; (give another file|make the video again)\.$"):
        host.StreamReport.execute(InputImpl.VideoFromFile(str(output_folder / "v.mp4")))


def test_a_spoilt_report_in_a_state_folder_does_not_stop_a_resume(host, vae, output_folder, monkeypatch, caplog):
    with stop_after(monkeypatch, 15):
        to_video(host, vae)
    place = output_folder / "talks" / "state" / "report.json"
    assert len(json.loads(place.read_text())["blocks"]) >= 1
    place.write_text('{"blocks": [{}]}')
    report = to_video(host, vae)[0].report
    assert "is not used" in caplog.text and report.frames == FRAMES and 0 < len(report.blocks) < 4


# --- decoding


def test_stop_is_noticed_between_the_latents_of_a_block(host, vae, monkeypatch):
    decoder = host.pack.nodes.vae.streaming_vae(vae, host.model.model)
    cache = decoder.new_cache()
    with stop_after(monkeypatch, 1):
        decoder.decode(torch.zeros(1, 16, 3, 4, 4), cache)
    started = decoder.decode(torch.zeros(1, 16, 1, 4, 4), decoder.new_cache())
    assert started.shape[2] == 1 and decoder.decode(torch.zeros(1, 16, 2, 4, 4), cache).shape[2] == 8
