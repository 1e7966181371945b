"""Stand-in of what nodes show on themselves."""

from __future__ import annotations


class SavedResult(dict):
    def __init__(self, filename: str, subfolder: str, type: object) -> None:
        super().__init__(filename=filename, subfolder=subfolder, type=type.value)


class PreviewImage:
    def __init__(self, image: object, cls: type | None = None) -> None:
        self.image = image

    def as_dict(self) -> dict[str, object]:
        return {"images": [self.image]}


class PreviewVideo:
    def __init__(self, values: list) -> None:
        self.values = values

    def as_dict(self) -> dict[str, object]:
        return {"images": self.values, "animated": (True,)}
