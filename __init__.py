"""ComfyUI entry of the pack; the host imports this folder and asks for its nodes."""

from importlib.util import find_spec
from pathlib import Path
from re import match

WEB_DIRECTORY = "./web"
REQUIREMENTS = Path(__file__).with_name("requirements.txt")


async def comfy_entrypoint():
    require_packages()
    from .nodes import JoyAvatarExtension  # here, so that a test runner may import this folder without a host

    return JoyAvatarExtension()


def require_packages() -> None:
    """Raise ImportError that names every package of requirements.txt that is not installed."""
    lines = REQUIREMENTS.read_text(encoding="utf-8").splitlines()
    names = [found[0] for found in (match(r"[A-Za-z][\w-]*", line) for line in lines) if found]
    missing = [name for name in names if find_spec(name.replace("-", "_")) is None]
    if missing:
        raise ImportError(
            f"ComfyUI-JoyAvatar is not loaded: {', '.join(missing)} is not installed; run "
            f"`pip install -r {REQUIREMENTS}` with ComfyUI's Python and start ComfyUI again."
        )
