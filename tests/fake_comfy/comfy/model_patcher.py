"""Stand-in: holds a model and where it belongs."""

from __future__ import annotations


class ModelPatcher:
    def __init__(self, model: object, load_device: object, offload_device: object) -> None:
        self.model, self.load_device, self.offload_device = model, load_device, offload_device
        self.model_options: dict[str, object] = {"transformer_options": {}}

    def add_callback(self, call_type: str, callback: object) -> None:
        """The stand-in loads nothing."""

    def get_wrappers(self, wrapper_type: str, key: str) -> list[object]:
        return []
