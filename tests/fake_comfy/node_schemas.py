"""The promise of a node in one form, whether it comes from the stand-in or from a server's /object_info."""

from __future__ import annotations

PROMISED = ("default", "min", "max", "step", "advanced", "control_after_generate")
FILES = ("model_name", "base_model")  # combos that list what is installed


def promise(info: dict) -> dict:
    """Ids, sockets, defaults and limits; not the words, which may improve."""
    sides = {
        side: {name: _input(name, *entry) for name, entry in info["input"].get(side, {}).items()}
        for side in ("required", "optional")
    }
    outputs = [list(output) for output in zip(info["output_name"], info["output"], info["output_is_list"], strict=True)]
    return {**sides, "outputs": outputs, "output_node": info["output_node"], "category": info["category"]}


def _input(name: str, kind: str | list, options: dict) -> dict:
    listed = options.get("options")
    if listed is not None:
        listed = list(listed)[:1] if name in FILES else list(listed)
    kept = {key: options[key] for key in PROMISED if options.get(key) is not None}
    return {"type": kind, **kept, **({"options": listed} if listed is not None else {})}
