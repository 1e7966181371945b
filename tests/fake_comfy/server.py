"""Stand-in: a server that remembers the texts sent to nodes."""

from __future__ import annotations


class PromptServer:
    instance: PromptServer

    def __init__(self) -> None:
        self.texts: list[str] = []

    def send_progress_text(self, text: str, node_id: str) -> None:
        self.texts.append(text)


PromptServer.instance = PromptServer()
