"""Run by the host's Python: what the MODEL does under the host's own nodes, printed as one line of JSON."""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import json
import logging
import sys
from pathlib import Path

host, pack, place = sys.argv[1:]
sys.argv = sys.argv[:1]
sys.path.insert(0, host)

import comfy.cli_args  # noqa: E402
import utils.install_util  # noqa: E402, F401  the host's package, before a dependency's module takes its name

comfy.cli_args.args.cpu = True
comfy.cli_args.args.base_directory = place

import comfy.model_management as mm  # noqa: E402
import comfy.model_patcher  # noqa: E402
import folder_paths  # noqa: E402
import torch  # noqa: E402
from safetensors.torch import save_file  # noqa: E402

import nodes  # noqa: E402

found: dict[str, object] = {}
logged: list[str] = []


class Listener(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        logged.append(record.getMessage())


def refusal(call, *args, **kwargs) -> str:
    """The error with which a node ends, else what a Streaming Sampler behind it says of the MODEL."""
    try:
        result = call(*args, **kwargs)
    except Exception as problem:
        return f"{type(problem).__name__}: {problem}"
    made = result[0] if result else None
    return " ".join(["nothing was refused", *(remarks(made) if isinstance(made, type(model)) else ())])


def weights(model) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.model.state_dict().items()}


def extra(module: str):
    asyncio.run(nodes.load_custom_node(str(Path(host, "comfy_extras", f"{module}.py")), module_parent="comfy_extras"))


logging.getLogger().addHandler(Listener())
folder_paths.folder_names_and_paths["loras"] = ([str(Path(place, "models", "loras"))], {".safetensors"})
folder_paths.set_output_directory(str(Path(place, "output")))
asyncio.run(nodes.load_custom_node(pack))
for module in (
    "nodes_model_advanced",
    "nodes_model_merging",
    "nodes_torch_compile",
    "nodes_freelunch",
    "nodes_easycache",
    "nodes_slg",
    "nodes_model_downscale",
    "nodes_custom_sampler",
    "nodes_ar_video",
):
    if Path(host, "comfy_extras", f"{module}.py").is_file():
        extra(module)
ours = {name: node for name, node in nodes.NODE_CLASS_MAPPINGS.items() if name.startswith("JoyAvatar")}
model = ours["JoyAvatarModelLoader"].execute("embedded", "default", "none")[0]
remarks = sys.modules[type(model).__module__].remarks

# --- a LoRA on two layers, through the native loader
dim = model.model.config.dim
generator = torch.Generator().manual_seed(0)
down, up = torch.randn(4, dim, generator=generator), torch.randn(dim, 4, generator=generator)
layers = ["blocks.0.self_attn.q", "blocks.1.cross_attn.o"]
lora = {f"diffusion_model.{layer}.lora_{side}.weight": w for layer in layers for side, w in (("A", down), ("B", up))}
Path(place, "models", "loras").mkdir(parents=True, exist_ok=True)
save_file(
    {name: tensor.contiguous().clone() for name, tensor in lora.items()}, Path(place, "models/loras/tiny.safetensors")
)
with torch.inference_mode():
    before = weights(model)
    patched = nodes.LoraLoaderModelOnly().load_lora_model_only(model, "tiny.safetensors", 0.5)[0]
    mm.load_models_gpu([patched])
    during = weights(patched)
    changed = sorted(name for name in before if not torch.equal(before[name], during[name]))
    found["lora_changes"] = changed
    found["lora_error"] = max(float((during[name] - before[name] - 0.5 * up @ down).abs().max()) for name in changed)
    mm.load_models_gpu([model])
    after = weights(model)
    found["restored"] = all(torch.equal(before[name], after[name]) for name in before)
    mm.load_models_gpu([patched])
    mm.unload_all_models()
    found["unloaded"] = all(torch.equal(before[name], tensor) for name, tensor in weights(model).items())

# --- LoRAs that change nothing
wide = {name: torch.cat([tensor, tensor], 0 if ".lora_B." in name else 1) for name, tensor in lora.items()}
found["lora_remarks"] = []
for weights_of_lora in ({"other.lora_A.weight": down, "other.lora_B.weight": up}, wide, lora):
    save_file(
        {n: t.contiguous().clone() for n, t in weights_of_lora.items()}, Path(place, "models/loras/other.safetensors")
    )
    found["lora_remarks"].append(
        remarks(nodes.LoraLoaderModelOnly().load_lora_model_only(model, "other.safetensors", 1.0)[0])
    )

# --- nodes that an avatar has nothing to do with
latent, conditioning = {"samples": torch.zeros(1, 16, 1, 8, 8)}, [[torch.zeros(1, 1, 16), {}]]
found["KSampler"] = refusal(
    nodes.KSampler().sample, model, 0, 1, 1.0, "euler", "simple", conditioning, conditioning, latent
)
found["ModelSamplingSD3"] = refusal(nodes.NODE_CLASS_MAPPINGS["ModelSamplingSD3"]().patch, model, 3.0)


def other(name: str, *values):
    """A native model node, of the old kind or the new."""
    node = nodes.NODE_CLASS_MAPPINGS[name]
    call = node.execute if hasattr(node, "define_schema") else getattr(node(), node.FUNCTION)
    return refusal(call, model, *values)


found["FreeU_V2"] = other("FreeU_V2", 1.3, 1.4, 0.9, 0.2)
found["EasyCache"] = other("EasyCache", 0.2, 0.15, 0.95, False)
found["SkipLayerGuidanceDiT"] = other("SkipLayerGuidanceDiT", 3.0, 0.01, 0.15, "7", "7", 0.0)
found["PatchModelAddDownscale"] = other("PatchModelAddDownscale", 3, 2.0, 0.0, 0.35, True, "bicubic", "bicubic")
found["ModelSave"] = refusal(nodes.NODE_CLASS_MAPPINGS["ModelSave"]().save, model, "saved")

if "SamplerARVideo" in nodes.NODE_CLASS_MAPPINGS:
    sampler = nodes.NODE_CLASS_MAPPINGS["SamplerARVideo"].execute(3)[0]
    sample = nodes.NODE_CLASS_MAPPINGS["SamplerCustom"].execute
    sigmas, zeros = torch.tensor([1.0, 0.5, 0.0]), {"samples": torch.zeros(1, 16, 3, 8, 8)}
    found["SamplerARVideo"] = refusal(sample, model, True, 0, 1.0, conditioning, conditioning, sampler, sigmas, zeros)

# --- streams: weights kept in bfloat16 and cast by the host, the host's attention, TorchCompileModel
voice = {"waveform": torch.sin(torch.arange(8000) * 0.05)[None, None] * 0.3, "sample_rate": 16000}


def latents(model) -> torch.Tensor:
    with torch.inference_mode():
        spoken = ours["JoyAvatarAudioEncode"].execute(voice, model, 0.0)[0]
        inputs = {"reference": latent, "voice": spoken, "preset": "plain", "seed": 0}
        stream = ours["JoyAvatarStreamingSampler"].execute(model, **inputs)[0]
        ours["JoyAvatarStreamToLatent"].hidden = type("Hidden", (), {"unique_id": None})
        return ours["JoyAvatarStreamToLatent"].execute(stream)[0]["samples"].clone()


plain = latents(model)
half = ours["JoyAvatarModelLoader"].execute("embedded", "bf16", "none")[0]
found["compute_dtype"] = str(half.model.compute_dtype)
found["bf16_difference"] = float((latents(half) - plain).abs().mean() / plain.abs().mean())
loaded_whole = latents(patched)
found["lora_moves_latents"] = float((loaded_whole - plain).abs().mean())
found["repeats"] = bool(torch.equal(latents(model), plain))

# --- the same with nearly all weights left where they are kept, and the LoRA applied as each is used
with torch.inference_mode():
    mm.unload_all_models()
    load_models = mm.load_models_gpu
    mm.load_models_gpu = lambda models, **_: [m.patch_model(m.load_device, lowvram_model_memory=1) for m in models]
    found["lowvram_difference"] = float((latents(patched) - loaded_whole).abs().max())
    found["lowvram_patches"] = patched.model.lowvram_patch_counter
    patched.unpatch_model(patched.offload_device)
    mm.load_models_gpu = load_models

# --- weights kept in fp8 with a scale, and a LoRA on them
with torch.inference_mode():
    small = ours["JoyAvatarModelLoader"].execute("embedded", "fp8", "none")[0]
    found["fp8_size"] = sum(p.nbytes for p in small.model.parameters()) / sum(
        p.nbytes for p in model.model.parameters()
    )
    in_fp8, kept = latents(small), weights(small)
    found["fp8_difference"] = float((in_fp8 - plain).abs().mean() / plain.abs().mean())
    with_lora = nodes.LoraLoaderModelOnly().load_lora_model_only(small, "tiny.safetensors", 0.01)[0]
    found["fp8_remarks"] = remarks(with_lora)
    fp8_whole = latents(with_lora)
    errors = []
    for name in layers:
        layer, exact = small.model.diffusion_model.get_submodule(name), before[f"diffusion_model.{name}.weight"]
        difference = layer.scaled(layer.weight.float()) - exact - 0.01 * up @ down
        errors.append(float(difference.square().mean().sqrt() / exact.square().mean().sqrt()))
    found["fp8_lora_error"], found["fp8_lora_size"] = max(errors), float((0.01 * up @ down).std() / exact.std())
    mm.unload_all_models()
    found["fp8_restored"] = all(torch.equal(kept[n].float(), t.float()) for n, t in weights(small).items())
    mm.load_models_gpu = lambda models, **_: [m.patch_model(m.load_device, lowvram_model_memory=1) for m in models]
    in_part = latents(with_lora)
    with_lora.unpatch_model(with_lora.offload_device)
    mm.load_models_gpu = load_models
    found["fp8_lowvram_difference"] = float((in_part - fp8_whole).abs().mean() / plain.abs().mean())

module = sys.modules[type(model.model).__module__]
model.model.diffusion_model.attention = module.host_attention
found["host_attention_difference"] = float((latents(model) - plain).abs().max())
model.model.diffusion_model.attention = module.sdpa

graphs: list[object] = []


def backend(graph, inputs, **options):
    """Stands for inductor: counts what it is given and runs it as it is."""
    graphs.append(graph)
    return graph.forward


compiled = nodes.NODE_CLASS_MAPPINGS["TorchCompileModel"].execute(model, backend)[0]
found["compile_difference"] = float((latents(compiled) - plain).abs().max())
found["compiled_graphs"] = len(graphs)
found["compile_remarks"] = remarks(compiled)
found["compile_leaves_the_model"] = type(model.model.diffusion_model).__name__

# --- a LoRA of what is in none of the host's layers
with torch.inference_mode():
    bare = ["blocks.1.modulation", "head.modulation", "blocks.0.self_attn.norm_q.weight", "blocks.2.norm3.weight"]
    changes = {name: torch.randn(before[f"diffusion_model.{name}"].shape, generator=generator) for name in bare}
    file = {f"diffusion_model.{name.removesuffix('.weight')}.diff": change for name, change in changes.items()}
    save_file(file, Path(place, "models/loras/bare.safetensors"))
    touched = nodes.LoraLoaderModelOnly().load_lora_model_only(patched, "bare.safetensors", 0.5)[0]
    mm.load_models_gpu([touched])
    during = weights(touched)
    keys = {name: f"diffusion_model.{name}" for name in bare}
    found["bare_lora_error"] = max(
        float((during[key] - before[key] - 0.5 * changes[name]).abs().max()) for name, key in keys.items()
    )
    whole = latents(touched)
    found["bare_lora_moves_latents"] = float((whole - loaded_whole).abs().mean())
    mm.unload_all_models()
    found["bare_restored"] = all(torch.equal(before[name], tensor) for name, tensor in weights(model).items())
    mm.load_models_gpu = lambda models, **_: [m.patch_model(m.load_device, lowvram_model_memory=1) for m in models]
    found["bare_lowvram_difference"] = float((latents(touched) - whole).abs().max())
    touched.unpatch_model(touched.offload_device)
    mm.load_models_gpu = load_models
    found["bare_lowvram_restored"] = all(torch.equal(before[name], tensor) for name, tensor in weights(model).items())

# --- loaded in part to another device, no weight is used where it is kept
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402
from torch.utils._pytree import tree_leaves  # noqa: E402

META = torch.device("meta")  # stands for a GPU


class Mixed(TorchDispatchMode):
    """Names the operations that take a tensor of the CPU beside one of the device."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor) and x.ndim]
        if {x.device.type for x in tensors} > {"meta"} and "copy" not in str(func):
            self.names.add(str(func))
        return func(*args, **(kwargs or {}))


def used_where_kept(patcher, run) -> list[str]:
    """The operations of `run` that mix devices, with almost nothing of the model loaded to the other device."""
    patcher.patch_model(META, lowvram_model_memory=1)
    mode = Mixed()
    with torch.no_grad(), mode:
        run()
    return sorted(mode.names)


patchers = sys.modules[type(model).__module__]
avatar = copy.deepcopy(model.model)
elsewhere = patchers.watched_patcher(avatar, META, torch.device("cpu"))
transformer = avatar.diffusion_model
transformer.attention = sys.modules[type(transformer).__module__].sdpa
contexts = sys.modules[type(transformer).__module__]


def one_pass() -> None:
    config = transformer.config
    text = transformer.encode_text(torch.zeros(1, 2, config.text_dim, device=META), 1)
    heard = transformer.encode_audio(torch.zeros(1, 3, 4, config.audio_dim, device=META))
    context = contexts.SelfContext(transformer.rope(range(3), 8, 8, META))
    noisy = torch.zeros(1, config.in_channels, 3, 8, 8, device=META)
    labels = torch.zeros(1, 3, device=META)
    transformer(noisy, labels, text, transformer.project_audio(heard), context)


found["used_where_kept"] = used_where_kept(elsewhere, one_pass)
found["kept"] = sorted({p.device.type for p in avatar.parameters()})
found["bare_on"] = sorted({p.device.type for _, p in patchers.bare_parameters(avatar)})

# --- a wav2vec2 encoder of the real size, through the host's loader
from comfy.audio_encoders.audio_encoders import load_audio_encoder_from_sd  # noqa: E402
from transformers import Wav2Vec2Config, Wav2Vec2Model  # noqa: E402

torch.manual_seed(0)
original = Wav2Vec2Model(Wav2Vec2Config()).eval()
state = {f"wav2vec2.{name}": tensor.detach() for name, tensor in original.state_dict().items()}
config = dataclasses.replace(model.model.config, audio_dim=10752, audio_features="wav2vec2")
listener = sys.modules[ours["JoyAvatarAudioEncode"].__module__]
encoder, patcher = listener.encoder_for(config, load_audio_encoder_from_sd(dict(state)))
reference = listener.Wav2Vec2.load(state)
edges = list(range(0, 8001, 1000))
heard, expected = (listening.encode(voice["waveform"][0, 0].numpy(), edges) for listening in (encoder, reference))
found["wav2vec2"] = [list(heard.shape), float((heard - expected).abs().max() / expected.abs().max())]
mm.load_models_gpu([patcher])
elsewhere = patchers.host_patcher(copy.deepcopy(patcher.model), META, torch.device("cpu"))
away = listener.Wav2Vec2(elsewhere.model[0])
away.device = META
found["wav2vec2_used_where_kept"] = used_where_kept(
    elsewhere, lambda: away.hidden_states(away.conv_features(torch.zeros(4000)))
)
found["wav2vec2_kept"] = sorted({p.device.type for p in elsewhere.model.parameters()})
found["wav2vec2_missing"] = refusal(listener.encoder_for, config, None)
found["wav2vec2_unwanted"] = refusal(listener.encoder_for, model.model.config, object())

# --- the class with dynamic VRAM, whose load leaves linear layers for later; without its memory, which needs a GPU
if hasattr(comfy.model_patcher, "ModelPatcherDynamic"):
    import comfy_aimdo.host_buffer

    class Dynamic(comfy.model_patcher.ModelPatcherDynamic):
        def __new__(cls, *args, **kwargs):
            return object.__new__(cls)  # the host's own gives a ModelPatcher on a CPU

    comfy_aimdo.host_buffer.HostBuffer = lambda *_: dataclasses.make_dataclass("NoBuffer", [("size", int, 0)])()
    plain_class, comfy.model_patcher.CoreModelPatcher = comfy.model_patcher.CoreModelPatcher, Dynamic
    dynamic = ours["JoyAvatarModelLoader"].execute("embedded", "default", "none")[0]
    found["dynamic"] = [dynamic.is_dynamic(), bool(torch.equal(latents(dynamic), plain))]
    expected, loaded = (
        latents(nodes.LoraLoaderModelOnly().load_lora_model_only(one, "bare.safetensors", 0.5)[0])
        for one in (model, dynamic)
    )
    found["dynamic_bare_lora"] = [float((loaded - expected).abs().max()), float((expected - plain).abs().mean())]
    comfy.model_patcher.CoreModelPatcher = plain_class

print("\n" + json.dumps(found))
