"""A custom node of the test host: nodes of this pack under ids that they never had, as if they had been renamed."""

import importlib.util
from pathlib import Path

from comfy_api.latest import ComfyExtension

PACK = Path(__file__).parent / "ComfyUI-JoyAvatar"
spec = importlib.util.spec_from_file_location("renamed_for_tests", PACK / "nodes" / "renamed.py")
renamed = importlib.util.module_from_spec(spec)
spec.loader.exec_module(renamed)
renamed.RENAMED.append(
    {
        "old_node_id": "JoyAvatarOldVideo",
        "new_node_id": "JoyAvatarStreamToVideo",
        "old_widget_ids": ["prefix", "crf"],
        "input_mapping": [
            {"new_id": "stream", "old_id": "stream"},
            {"new_id": "filename_prefix", "old_id": "prefix"},
            {"new_id": "quality", "old_id": "crf"},
        ],
    }
)


class OldNames(ComfyExtension):
    async def on_load(self) -> None:
        await renamed.register_renamed()

    async def get_node_list(self) -> list:
        return []


async def comfy_entrypoint() -> OldNames:
    return OldNames()
