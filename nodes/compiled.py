"""Support for a Torch Compile node before ours: the model's passes run inside the host's wrapper."""

from __future__ import annotations

from typing import Any

from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrapperExecutor, WrappersMP
from torch import Tensor

from ..joyavatar_core.model.transformer import AvatarTransformer
from .model import HostAvatar, avatar_of

KEY = "torch.compile"  # under which the host keeps the wrapper of its Torch Compile node


class CompiledPasses:
    """The transformer of a MODEL. During a pass the host replaces its modules with compiled ones.

    All other attributes are those of the transformer.
    """

    def __init__(self, avatar: HostAvatar, wrappers: list[Any]) -> None:
        self._avatar, self._wrappers = avatar, wrappers
        self._transformer = avatar.diffusion_model

    def __call__(self, *inputs: Any) -> Tensor | None:
        executor = WrapperExecutor.new_class_executor(self._run, self._avatar, self._wrappers)
        return executor.execute(*inputs)

    @property
    def module(self) -> AvatarTransformer:
        """The transformer; its weights identify the stream in a state folder."""
        return self._transformer

    def _run(self, *inputs: Any) -> Tensor | None:
        return self._avatar.diffusion_model(*inputs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transformer, name)


def passes_of(model: ModelPatcher) -> AvatarTransformer | CompiledPasses:
    """The transformer of a MODEL as a stream calls it."""
    avatar = avatar_of(model)
    wrappers = model.get_wrappers(WrappersMP.APPLY_MODEL, KEY)
    return CompiledPasses(avatar, wrappers) if wrappers else avatar.diffusion_model
