"""ComfyUI entry of the pack; the host imports this folder and asks for its nodes."""

WEB_DIRECTORY = "./web"


async def comfy_entrypoint():
    from .nodes import JoyAvatarExtension  # here, so that a test runner may import this folder without a host

    return JoyAvatarExtension()
