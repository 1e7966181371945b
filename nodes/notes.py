"""Text and pictures that a node shows on itself."""

from __future__ import annotations

import numpy as np
from comfy_api.latest import ui
from PIL import Image
from server import PromptServer
from torch import Tensor, from_numpy


def title(cls: type) -> str:
    """A node's name as users see it (the host runs a copy of the class under another name)."""
    return cls.define_schema().display_name


TEXT_EVENT = "joyavatar.text"  # to the page: {"node": id, "text": line}; web/js/node_text.js listens


def show_text(node_id: str | None, text: str) -> None:
    """Show a line of text on a node while it runs. Without a connected page this does nothing.

    Permanent text belongs in the node's `ui` (`note`). The page gets it again for cached nodes.
    """
    server = getattr(PromptServer, "instance", None)
    if node_id is not None and server is not None:
        server.send_sync(TEXT_EVENT, {"node": node_id, "text": text}, server.client_id)


def note(text: str) -> dict:
    """A node's `ui`: text that stays on it and in the history."""
    return {"text": (text,)}


def drawn(picture: Image.Image, cls: type, text: str) -> dict:
    """A node's `ui`: a drawing under the node, and text that stays."""
    return {**ui.PreviewImage(to_image(picture), cls=cls).as_dict(), **note(text)}


def to_image(picture: Image.Image) -> Tensor:
    """A drawing as the host's IMAGE, [1, H, W, 3] in 0 ... 1."""
    return from_numpy(np.asarray(picture.convert("RGB"), np.float32) / 255)[None]
