"""The pack inside a running ComfyUI: graphs through its queue, Stop, wrong inputs, memory."""

from __future__ import annotations

import copy
import json
import sys
import time
import urllib.error
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from joyavatar_core.pipeline.avatar import load_avatar
from joyavatar_core.pipeline.embedded import ASSETS, EMBEDDED_VAE

ROOT = Path(__file__).parents[2]
FRAMES = 12  # 0.7 s at 16 frames/s
VIDEO = {"stream": ["stream", 0], "filename_prefix": "talk", "quality": 18}


def decoded(path: Path) -> tuple[np.ndarray, float, dict]:
    """(frames [N, H, W, 3], seconds of sound, tags)."""
    with av.open(str(path)) as file:
        tags = dict(file.metadata)
        sound = sum(frame.samples / frame.sample_rate for frame in file.decode(audio=0))
    with av.open(str(path)) as file:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]), sound, tags


def test_object_info_is_what_was_promised(server):
    sys.path.insert(0, str(ROOT / "tests" / "fake_comfy"))
    from node_schemas import promise

    listed = server.get("/object_info")
    golden = json.loads((ROOT / "tests" / "golden" / "node_schemas.json").read_text(encoding="utf-8"))
    assert {name: json.loads(json.dumps(promise(listed[name]))) for name in golden} == golden


def test_a_talking_video_comes_out_and_native_nodes_take_it(server, talk, node):
    graph = talk(
        video=node("JoyAvatarStreamToVideo", **VIDEO),
        save=node("SaveVideo", video=["video", 0], filename_prefix="again", format="auto", codec="auto"),
        report=node("JoyAvatarStreamReport", source=["video", 0]),
    )
    shown = server.run(graph)
    assert shown["video"]["animated"] == [True]
    frames, sound, tags = decoded(server.files(shown["video"])[0])
    assert frames.shape == (FRAMES, 256, 256, 3) and sound == pytest.approx(0.7, abs=0.1)  # refined to four times
    assert json.loads(tags["prompt"])["stream"]["class_type"] == "JoyAvatarStreamingSampler"
    assert np.array_equal(decoded(server.files(shown["save"])[0])[0], frames)
    assert shown["report"]["text"][0].startswith(f"{FRAMES} frames") and shown["report"]["images"]


def test_a_graph_with_a_renamed_node_and_input_runs_as_the_new_one(server, talk, node):
    try:
        listed = server.get("/node_replacements")
    except urllib.error.HTTPError:
        pytest.skip("THIS HOST CANNOT REPLACE NODES (0.14 and newer can)")
    assert listed["JoyAvatarOldVideo"][0]["new_node_id"] == "JoyAvatarStreamToVideo"
    old = node("JoyAvatarOldVideo", stream=["stream", 0], prefix="by_its_old_name", crf=30)
    shown = server.run(talk(video={**old, "_meta": {"title": "Old"}}))
    assert shown["video"]["images"][0]["filename"] == "by_its_old_name_00001_.mp4"


def test_same_seed_same_video_and_another_seed_another(server, talk, node):
    def frames(seed, prefix):
        video = node("JoyAvatarStreamToVideo", **{**VIDEO, "filename_prefix": prefix})
        return decoded(server.files(server.run(talk(seed=seed, video=video))["video"])[0])[0]

    first = frames(5, "a")
    assert np.array_equal(frames(5, "b"), first)
    assert not np.array_equal(frames(6, "c"), first)


def test_frames_equal_the_native_decode_of_the_latents(server, talk, node):
    graph = talk(
        32,
        vae="narrow.safetensors",
        frames=node(
            "JoyAvatarStreamToFrames", stream=["stream", 0], batching="one batch", count=1, vae=["vae", 0], refine="off"
        ),
        latent=node("JoyAvatarStreamToLatent", stream=["stream", 0]),
        native=node("VAEDecode", samples=["latent", 0], vae=["vae", 0]),
        ours_saved=node("SaveImage", images=["frames", 0], filename_prefix="ours"),
        native_saved=node("SaveImage", images=["native", 0], filename_prefix="native"),
    )
    entry = server.wait(server.queue(graph))
    if "size mismatch" in json.dumps(entry["status"]):
        pytest.skip("THIS HOST'S Load VAE READS ONLY THE OFFICIAL WIDTH of a Wan2.1 VAE: no native decode to compare")
    shown = entry["outputs"]
    ours, native = (
        np.stack([np.asarray(Image.open(file), np.int16) for file in server.files(shown[name])])
        for name in ("ours_saved", "native_saved")
    )
    assert ours.shape == (FRAMES, 32, 32, 3) and len(native) == 21
    assert np.abs(ours - native[:FRAMES]).max() <= 1
    assert shown["latent"]["text"][0].endswith(f"keep the first {FRAMES}")


def test_the_shipped_vae_encodes_and_decodes_in_native_nodes(server, node):
    graph = {
        "vae": node("VAELoader", vae_name=EMBEDDED_VAE.name),
        "image": node("LoadImage", image="joyavatar_ada.png"),
        "latent": node("VAEEncode", pixels=["image", 0], vae=["vae", 0]),
        "again": node("VAEDecode", samples=["latent", 0], vae=["vae", 0]),
        "saved": node("SaveImage", images=["again", 0], filename_prefix="native_vae"),
    }
    entry = server.wait(server.queue(graph))
    if "size mismatch" in json.dumps(entry["status"]):
        pytest.skip("THIS HOST'S Load VAE READS ONLY THE OFFICIAL WIDTH of a Wan2.1 VAE, not the shipped one")
    native = np.asarray(Image.open(server.files(entry["outputs"]["saved"])[0]), np.float32)
    picture = np.asarray(Image.open(ASSETS / "portraits" / "ada.png").convert("RGB"), np.float32)
    video = torch.from_numpy(picture / 127.5 - 1).permute(2, 0, 1)[None, :, None]
    with torch.no_grad():
        vae = load_avatar().vae
        ours = (vae.decode(vae.encode(video))[0, :, 0].permute(1, 2, 0).numpy() + 1) * 127.5
    assert native.shape == picture.shape
    assert np.abs(native - ours).max() <= 2
    assert np.abs(native - picture).mean() < 12  # and it is the portrait


def test_batches_reach_native_nodes_one_by_one(server, talk, node):
    graph = talk(
        frames=node("JoyAvatarStreamToFrames", stream=["stream", 0], batching="by count", count=5),
        video=node("CreateVideo", images=["frames", 0], fps=["frames", 1], audio=["frames", 2]),
        save=node("SaveVideo", video=["video", 0], filename_prefix="pieces", format="auto", codec="auto"),
    )
    pieces = [len(decoded(file)[0]) for file in server.files(server.run(graph)["save"])]
    assert pieces == [5, 5, 2]


def test_pulling_a_stream_twice_is_said_to_cost_twice(server, talk, node):
    graph = talk(
        video=node("JoyAvatarStreamToVideo", **VIDEO),
        latent=node("JoyAvatarStreamToLatent", stream=["stream", 0]),
        report=node("JoyAvatarStreamReport", source=["stream", 0]),
        saved=node("SaveLatent", samples=["latent", 0], filename_prefix="latents"),
        seed=21,
    )
    server.run(graph)
    log = (server.base / "server.log").read_text(encoding="utf-8")
    assert "samples a stream anew that JoyAvatar Stream" in log and "Clone samples" not in log


def test_schedule_nodes_show_their_effect(server, talk, node):
    psb = {"first_steps": 2, "base_steps": 1, "blocks": 2, "curve": 1.0, "mode": "restart", "steps": ""}
    continuity = {"mci_mode": "inject", "mci_frames": 3, "mci_noise": 0.25, "urcr_mode": "rotate", "sinks": 3}
    continuity |= {"recent": 6, "sink_source": "portrait", "window": 0, "model": ["model", 0]}
    graph = talk(
        psb=node("JoyAvatarPSBSchedule", **psb),
        continuity=node("JoyAvatarContinuity", **continuity),
        report=node("JoyAvatarStreamReport", source=["stream", 0]),
    )
    graph["stream"]["inputs"] |= {"psb": ["psb", 0], "continuity": ["continuity", 0]}
    shown = server.run(graph)
    assert shown["psb"]["text"][0].startswith("steps 2 2 1 …") and shown["psb"]["images"]
    assert "resets every" in shown["continuity"]["text"][0]
    assert "first 2" in shown["report"]["text"][0]


def test_stop_leaves_a_playable_file_with_its_sound(server, talk, node):
    video = node("JoyAvatarStreamToVideo", **{**VIDEO, "filename_prefix": "stopped"})
    prompt_id = server.queue(talk(audio="long.wav", seed=11, video=video))
    part = server.output / "stopped_00001_.part.mp4"
    for _ in range(600):
        if part.is_file() and part.stat().st_size > 30_000:
            break
        time.sleep(0.05)
    server.post("/interrupt", {})
    entry = server.wait(prompt_id)
    assert "execution_interrupted" in json.dumps(entry["status"]["messages"])
    frames, sound, _ = decoded(part)
    assert 0 < len(frames) < 960 and sound == pytest.approx(len(frames) / 16, abs=0.1)
    assert not part.with_name("stopped_00001_.mp4").exists()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"reference": {"width": 1024, "height": 1024}}, "more pixels than"),
        ({"reference": {"width": 40}}, "multiples of 16"),
        ({"video": {"filename_prefix": "../../out"}}, "leads out of the output folder"),
        ({"video": {"state": "../../out"}}, "leads out of the output folder"),
        ({"video": {"state": "s", "checkpoint_every": "often"}}, "interval between states is 'often'"),
        ({"stream": {"reference": ["empty", 0]}}, "expected a Wan2.1 latent"),
        ({"psb": {"steps": "4, many"}}, "PSB steps is '4, many'"),
    ],
)
def test_wrong_inputs_get_one_sentence(server, talk, node, change, sentence):
    psb = {"first_steps": 8, "base_steps": 0, "blocks": 4, "curve": 1.0, "mode": "restart", "steps": ""}
    graph = talk(
        video=node("JoyAvatarStreamToVideo", **VIDEO),
        empty=node("EmptyLatentImage", width=64, height=64, batch_size=1),
        psb=node("JoyAvatarPSBSchedule", **psb),
    )
    graph["stream"]["inputs"]["psb"] = ["psb", 0]
    graph = copy.deepcopy(graph)
    for name, inputs in change.items():
        graph[name]["inputs"] |= inputs
    message = server.refusal(graph)
    assert sentence in message and "Traceback" not in message and message.count("\n") <= 1


def test_values_out_of_bounds_are_refused_before_anything_runs(server, talk, node):
    graph = talk(video=node("JoyAvatarStreamToVideo", **{**VIDEO, "quality": 99}))
    del graph["voice"]["inputs"]["audio"]
    status, answer = server.post("/prompt", {"prompt": graph})
    assert status == 400 and {"video", "voice"} <= set(answer["node_errors"])


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="NO /proc: the server's memory cannot be read here")
def test_run_after_run_memory_stays_flat(server, talk, node):
    def run(seed):
        server.run(talk(seed=seed, video=node("JoyAvatarStreamToVideo", **VIDEO)))
        return server.resident_bytes()

    settled = [run(seed) for seed in range(100, 103)][-1]
    assert [run(seed) for seed in range(200, 204)][-1] - settled < 20 * 2**20
