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


def show_text(node_id: str | None, text: str) -> None:
    """Put a line of text on a node of the open graph; nothing happens where nobody looks."""
    server = getattr(PromptServer, "instance", None)
    if node_id is not None and server is not None:
        server.send_progress_text(text, node_id)


def note(node_id: str | None, text: str) -> dict:
    """Show `text` on the node; the same for the history, as a node's `ui`."""
    show_text(node_id, text)
    return {"text": (text,)}


def drawn(picture: Image.Image, cls: type, text: str) -> dict:
    """A drawing under a node, with its text: a node's `ui`."""
    return {**ui.PreviewImage(to_image(picture), cls=cls).as_dict(), **note(cls.hidden.unique_id, text)}


def to_image(picture: Image.Image) -> Tensor:
    """A drawing as the host's IMAGE, [1, H, W, 3] in 0 ... 1."""
    return from_numpy(np.asarray(picture.convert("RGB"), np.float32) / 255)[None]
