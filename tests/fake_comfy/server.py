"""Stand-in: a server that remembers the texts sent to nodes."""

from __future__ import annotations


class PromptServer:
    instance: PromptServer

    client_id: str | None = None

    def __init__(self) -> None:
        self.texts: list[str] = []

    def send_sync(self, event: str, data: dict[str, str], sid: str | None = None) -> None:
        if event == "joyavatar.text":
            self.texts.append(data["text"])


PromptServer.instance = PromptServer()
