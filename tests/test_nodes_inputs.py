"""Loader, reference, voice and the two schedule nodes: what they make, and what they say to wrong inputs."""

from __future__ import annotations

import dataclasses
import os
from types import SimpleNamespace

import pytest
import torch


@pytest.fixture(scope="module")
def host(pack):
    """The pack's nodes by their names, with the embedded avatar loaded."""
    nodes = {node.__name__.removeprefix("JoyAvatar"): node for node in pack.nodes.NODES}
    model = nodes["ModelLoader"].execute("embedded", "default", "none")[0]
    return SimpleNamespace(**nodes, model=model, pack=pack, error=pack.joyavatar_core.errors.AvatarError)


@pytest.fixture(scope="module")
def vae(pack):
    return make_vae(pack)


def make_vae(pack, state=None):
    from comfy.model_patcher import ModelPatcher

    class HostVAE:
        patcher = ModelPatcher(None, torch.device("cpu"), torch.device("cpu"))

        def get_sd(self):
            return state if state is not None else pack.joyavatar_core.vae.random_state_dict(8)

    return HostVAE()


def avatar(host, **changes):
    """The loaded model with another config."""
    inner = host.model.model
    transformer = SimpleNamespace(config=dataclasses.replace(inner.config, **changes))
    swapped = inner.__class__.__new__(inner.__class__)
    torch.nn.Module.__init__(swapped)
    swapped.diffusion_model = transformer
    return SimpleNamespace(model=swapped)


def sound(seconds=1.0, rate=16000, channels=1):
    return {"waveform": torch.rand(1, channels, round(seconds * rate)) * 0.1, "sample_rate": rate}


# --- loader


def test_embedded_is_first_in_the_list_and_files_follow(host, pack, tmp_path, monkeypatch):
    import folder_paths

    (tmp_path / "b.safetensors").touch()
    (tmp_path / "readme.txt").touch()
    (tmp_path / "wan").mkdir()
    (tmp_path / "wan" / "c.gguf").touch()
    monkeypatch.setattr(folder_paths, "folder_names_and_paths", {"diffusion_models": ([str(tmp_path)], set())})
    assert pack.nodes.folders.checkpoint_names() == ["embedded", "b.safetensors", os.path.join("wan", "c.gguf")]


def test_a_model_is_loaded_again_when_its_file_or_config_changes(host, tmp_path, monkeypatch):
    import folder_paths

    (tmp_path / "b.safetensors").touch()
    monkeypatch.setattr(folder_paths, "folder_names_and_paths", {"joyavatar": ([str(tmp_path)], set())})
    before = host.ModelLoader.fingerprint_inputs("b.safetensors", "default", None)  # the base comes from another node
    assert host.ModelLoader.fingerprint_inputs("b.safetensors", "default", None) == before
    (tmp_path / "config.json").write_text("{}")
    assert host.ModelLoader.fingerprint_inputs("b.safetensors", "default", None) != before


def test_loader_says_what_is_wrong_with_a_file(host, tmp_path, monkeypatch):
    import folder_paths

    (tmp_path / "model.gguf").write_bytes(b"GGUF" + bytes(60))
    monkeypatch.setattr(folder_paths, "folder_names_and_paths", {"joyavatar": ([str(tmp_path)], set())})
    with pytest.raises(host.error, match="GGUF file"):
        host.ModelLoader.execute("model.gguf", "default", "none")
    with pytest.raises(host.error, match=r"'gone.safetensors' is not in models/diffusion_models"):
        host.ModelLoader.execute("gone.safetensors", "default", "none")


def test_a_replaced_file_is_loaded_again(host, tmp_path, monkeypatch):
    import os

    import folder_paths

    file = tmp_path / "a.safetensors"
    file.touch()
    monkeypatch.setattr(folder_paths, "folder_names_and_paths", {"joyavatar": ([str(tmp_path)], set())})
    before = host.ModelLoader.fingerprint_inputs(file.name, "default", "none")
    os.utime(file, ns=(1, 1))
    assert host.ModelLoader.fingerprint_inputs(file.name, "default", "none") != before


def test_weight_dtype_is_kept(host):
    model = host.ModelLoader.execute("embedded", "bf16", "none")[0].model
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize("reach", ["latent_format", "model_sampling", "model_type"])
def test_nodes_that_sample_or_save_a_model_get_one_sentence(host, reach):
    with pytest.raises(host.error, match="JoyAvatar model"):
        getattr(host.model.model, reach)
    with pytest.raises(host.error, match="JoyAvatar model"):
        _ = host.model.model.model_config.sampling_settings
    with pytest.raises(host.error, match="JoyAvatar model"):
        _ = host.model.model.model_config.unet_config["model_channels"]


def test_another_model_is_refused_by_name(host):
    foreign = SimpleNamespace(model=torch.nn.Linear(1, 1))
    with pytest.raises(host.error, match="is a Linear, expected a JoyAvatar model"):
        host.AudioEncode.execute(sound(), foreign, 0.0)


# --- reference


def test_reference_is_the_cropped_portrait_and_its_latent_in_the_hosts_scale(host, vae, pack):
    picture = torch.rand(1, 50, 40, 3)
    latent, shown = host.Reference.execute(picture, host.model, 48, 32, vae).args
    assert shown.shape == (1, 32, 48, 3) and shown.min() >= 0 and shown.max() <= 1
    module = pack.nodes.vae.streaming_vae(vae, host.model.model).module
    raw = module.encode_moments(shown.mul(2).sub(1).permute(0, 3, 1, 2)[:, :, None])[0]
    torch.testing.assert_close(latent["samples"], raw, atol=1e-5, rtol=1e-5)


def test_a_picture_that_a_resizing_node_overshot_is_clipped(host, vae):
    picture = torch.rand(1, 50, 40, 3) * 1.4 - 0.2
    shown = host.Reference.execute(picture, host.model, 48, 32, vae)[1]
    assert torch.equal(shown, host.Reference.execute(picture.clamp(0, 1), host.model, 48, 32, vae)[1])


def test_masks_of_other_shapes_are_taken_or_refused_in_a_sentence(host, vae):
    grey, mask = torch.rand(1, 50, 40, 1), torch.zeros(1, 1, 50, 40)
    shown = host.Reference.execute(grey, host.model, 48, 32, vae, mask=mask)[1]
    assert torch.equal(shown, host.Reference.execute(grey.expand(-1, -1, -1, 3), host.model, 48, 32, vae)[1])
    with pytest.raises(host.error, match="The mask is an empty batch"):
        host.Reference.execute(grey, host.model, 48, 32, vae, mask=torch.zeros(0, 50, 40))


def test_latents_survive_the_way_to_the_hosts_scale_and_back(host, pack):
    config, x = host.model.model.config, torch.randn(1, 16, 2, 4, 4)
    there = pack.nodes.vae.to_host(x, config)
    torch.testing.assert_close(pack.nodes.vae.from_host(there, config), x, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("width", "height", "sentence"), [(1024, 1024, "more pixels than"), (40, 32, "multiples of 16")]
)
def test_sizes_that_cannot_be_are_refused(host, vae, width, height, sentence):
    with pytest.raises(host.error, match=sentence):
        host.Reference.execute(torch.rand(1, 64, 64, 3), host.model, width, height, vae)


def test_another_vae_is_refused_in_one_sentence(host, pack):
    wrong = make_vae(pack, {"decoder.conv_in.weight": torch.zeros(4, 4, 3, 3)})
    with pytest.raises(host.error, match="not a video autoencoder"):
        host.Reference.execute(torch.rand(1, 64, 64, 3), host.model, 32, 32, wrong)


def test_the_embedded_avatar_brings_its_own_vae_and_others_ask_for_one(host):
    latent, _ = host.Reference.execute(torch.rand(1, 64, 64, 3), host.model, 32, 32).args
    assert latent["samples"].shape == (1, 16, 1, 4, 4)
    other = host.ModelLoader.execute("embedded", "default", "none")[0]
    other.model.name = "LiveTalk.safetensors"
    with pytest.raises(host.error, match=r"'LiveTalk.safetensors' comes without a VAE"):
        host.Reference.execute(torch.rand(1, 64, 64, 3), other, 32, 32)


# --- voice


def test_voice_is_cut_after_max_seconds_and_computes_nothing(host):
    voice = host.AudioEncode.execute(sound(2.0, 8000, 2), host.model, 0.5)[0]
    assert voice.source.num_samples == 4000 and voice.source.channels == 2
    assert not voice.features._cached


def test_missing_and_broken_audio_is_refused(host):
    with pytest.raises(host.error, match="There is no audio here"):
        host.AudioEncode.execute(None, host.model, 0.0)
    with pytest.raises(host.error, match="NaN"):
        host.AudioEncode.execute({"waveform": torch.full((1, 1, 9), torch.nan), "sample_rate": 16000}, host.model, 0.0)


def test_encoder_mismatches_say_which_one_the_checkpoint_wants(host):
    with pytest.raises(host.error, match="visemes features, which need no audio encoder"):
        host.AudioEncode.execute(sound(), host.model, 0.0, object())
    wav2vec = avatar(host, audio_features="wav2vec2")
    with pytest.raises(host.error, match="Load Audio Encoder"):
        host.AudioEncode.execute(sound(), wav2vec, 0.0)

    class Whisper:
        def get_sd(self):
            return {"encoder.conv1.weight": torch.zeros(1)}

    with pytest.raises(host.error, match="no wav2vec2 model"):
        host.AudioEncode.execute(sound(), wav2vec, 0.0, Whisper())


# --- schedules


def psb(host, first=8, base=0, blocks=4, curve=1.0, mode="restart", steps="", model=None):
    return host.PSBSchedule.execute(first, base, blocks, curve, mode, steps, model)


def test_psb_node_makes_the_settings_and_says_the_steps(host):
    output = psb(host)
    assert [output[0].steps_for(block, 4) for block in range(6)] == [8, 7, 6, 5, 4, 4]
    assert output.ui["text"][0].startswith("steps 8 7 6 5 4 …, then 4 a block")
    assert output.ui["images"]


def test_psb_list_replaces_the_curve(host):
    assert psb(host, steps="9, 5 3")[0].steps == (9, 5, 3)
    with pytest.raises(host.error, match="'4, x'"):
        psb(host, steps="4, x")


def test_psb_is_checked_against_a_wired_model(host):
    with pytest.raises(host.error, match="at least as many"):
        psb(host, first=2, model=host.model)


def continuity(host, mci="inject", frames=3, noise=0.25, urcr="rotate", sinks=3, recent=6, model=None):
    return host.Continuity.execute(mci, frames, noise, urcr, sinks, recent, "portrait", 0, model)


def test_continuity_explains_itself_in_numbers(host):
    # Blocks of 3 latent and 12 video frames at 16 a second; one more forward beside the steps and a cache update.
    config = host.model.model.diffusion_model.config
    blocks, forwards = (config.trained_positions - 3 - 6) // 3, len(config.levels) + 1
    text = continuity(host, model=host.model).ui["text"][0]
    assert f"resets every {blocks * 0.75:.1f} s ({blocks} blocks)" in text
    assert f"cost about ×{1 + 1 / forwards:.2f}" in text
    assert "cost about ×1.00" in continuity(host, mci="off", model=host.model).ui["text"][0]
    prefill = 1 + 2 / (forwards * blocks)  # two blocks more in every cycle
    assert f"cost about ×{prefill:.2f}" in continuity(host, mci="off", urcr="prefill", model=host.model).ui["text"][0]
    window = continuity(host, urcr="window", model=host.model)
    assert "never resets" in window.ui["text"][0]
    assert continuity(host, urcr="off", model=host.model)[0] == window[0]  # as older graphs have it


def test_carrying_is_a_setting_of_its_own_that_old_graphs_need_not_name(host):
    carry = "noise carried over seams"
    assert carry in continuity(host).ui["text"][0]  # as a graph from before it
    without = host.Continuity.execute("inject", 3, 0.25, "rotate", 3, 6, "portrait", 0, mci_carry=0.0)
    assert carry not in without.ui["text"][0] and without.args[0].mci.carry == 0.0


def test_continuity_is_checked_against_a_wired_model(host):
    with pytest.raises(host.error, match="MCI shows the newest 9 frames"):
        continuity(host, frames=9, model=host.model)


def test_a_gpu_with_room_decodes_a_block_at_once(host, pack, monkeypatch):
    known = pack.nodes.vae
    decoder = known.HostDecoder(known.StreamingVAE(96).bfloat16(), torch.device("cuda"), torch.device("cpu"))
    monkeypatch.setattr(known.mm, "get_total_memory", lambda device: 24 << 30)
    assert decoder.at_once((512, 512)) == 3 and decoder.at_once((1024, 1024)) == 1
    assert decoder.working_bytes((512, 512)) == known.decoder_bytes((512, 512), torch.bfloat16, 3)
    monkeypatch.setattr(known.mm, "get_total_memory", lambda device: 8 << 30)
    assert decoder.at_once((512, 512)) == 1
    assert decoder.working_bytes((512, 512)) == known.decoder_bytes((512, 512), torch.bfloat16, 1)
    decoder.compute_device = torch.device("cpu")
    assert decoder.at_once((64, 64)) == 1


def test_the_embedded_vae_is_in_the_dtype_that_the_host_gives_vaes(host, pack, monkeypatch):
    known = pack.nodes.vae
    monkeypatch.setattr(known.mm, "vae_dtype", lambda device, allowed: allowed[0])
    monkeypatch.setattr(known, "_known", {})
    decoder = known._embedded(host.model.model, encodes=True)
    assert decoder.module.compute_dtype == torch.bfloat16
    cache = decoder.new_cache()
    assert torch.isfinite(decoder.decode(torch.randn(1, 16, 3, 4, 4), cache)).all()
    assert decoder.encode(torch.zeros(3, 32, 32)).shape == (1, 16, 1, 4, 4)


def test_a_tiny_decoder_decodes_and_is_refused_as_an_encoder(host, pack):
    known = pack.nodes.vae
    tiny = make_vae(pack, known.TinyDecoder((32, 16, 8, 8)).state_dict())
    decoder = known.streaming_vae(tiny, host.model.model)
    assert decoder.decode(torch.zeros(1, 16, 1, 2, 2)).shape == (1, 3, 1, 16, 16)
    with pytest.raises(host.error, match=r"cannot encode; use the Wan2\.1 VAE"):
        known.encoding_vae(tiny, host.model.model)
