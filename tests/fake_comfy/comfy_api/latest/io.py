"""Stand-in of the host's schema classes; a schema is turned into what a server lists under /object_info."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from types import SimpleNamespace


class Hidden(str, Enum):
    unique_id = "UNIQUE_ID"
    prompt = "PROMPT"
    extra_pnginfo = "EXTRA_PNGINFO"


class FolderType(str, Enum):
    output = "output"
    temp = "temp"


class Input:
    io_type = "*"

    def __init__(self, id: str, optional: bool = False, **options: object) -> None:
        self.id, self.optional, self.options, self.extra_dict = id, optional, options, {}

    def object_info(self) -> list[object]:
        return [self.io_type, {**self.options, **self.extra_dict}]


class Output:
    io_type = "*"

    def __init__(
        self, id: str, display_name: str | None = None, tooltip: str | None = None, is_output_list: bool = False
    ) -> None:
        self.name, self.tooltip, self.is_output_list = display_name or id, tooltip, is_output_list


def Custom(io_type: str) -> type:
    sockets = {base.__name__: type(base.__name__, (base,), {"io_type": io_type}) for base in (Input, Output)}
    return type(io_type, (), {"io_type": io_type, **sockets})


Boolean, Int, Float, String, Combo = map(Custom, ("BOOLEAN", "INT", "FLOAT", "STRING", "COMBO"))
Image, Mask, Latent, Audio, Video = map(Custom, ("IMAGE", "MASK", "LATENT", "AUDIO", "VIDEO"))
Model, Vae = map(Custom, ("MODEL", "VAE"))
Conditioning, AudioEncoder = map(Custom, ("CONDITIONING", "AUDIO_ENCODER"))


class MultiType:
    class Input(Input):
        def __init__(self, id: str, types: list[type], **options: object) -> None:
            super().__init__(id, **options)
            self.io_type = ",".join(kind.io_type for kind in types)


@dataclass
class Schema:
    node_id: str
    display_name: str = ""
    category: str = ""
    description: str = ""
    inputs: list[Input] = field(default_factory=list)
    outputs: list[Output] = field(default_factory=list)
    hidden: list[Hidden] = field(default_factory=list)
    is_output_node: bool = False

    def object_info(self) -> dict[str, object]:
        sides: dict[str, dict[str, object]] = {"required": {}}
        for entry in self.inputs:
            sides.setdefault("optional" if entry.optional else "required", {})[entry.id] = entry.object_info()
        return {
            "name": self.node_id,
            "display_name": self.display_name,
            "category": self.category,
            "input": sides,
            "output": [output.io_type for output in self.outputs],
            "output_name": [output.name for output in self.outputs],
            "output_is_list": [output.is_output_list for output in self.outputs],
            "output_node": self.is_output_node,
        }


class ComfyNode:
    hidden = SimpleNamespace(unique_id="7", prompt=None, extra_pnginfo=None)


class NodeOutput:
    def __init__(self, *args: object, ui: object = None) -> None:
        self.args, self.ui = args, ui

    def __getitem__(self, index: int) -> object:
        return self.args[index]
