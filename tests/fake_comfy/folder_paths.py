"""Stand-in: the host's folders, wherever a test puts `base`."""

from __future__ import annotations

from pathlib import Path

base = Path()
models_dir = "models"
folder_names_and_paths: dict[str, tuple[list[str], set[str]]] = {}


def get_output_directory() -> str:
    return str(base / "output")


def get_input_directory() -> str:
    return str(base / "input")


def add_model_folder_path(name: str, path: str) -> None:
    folder_names_and_paths.setdefault(name, ([], set()))[0].append(path)


def get_filename_list(name: str) -> list[str]:
    files = [file.name for folder in folder_names_and_paths[name][0] for file in Path(folder).glob("*")]
    return sorted(name for name in files if not name.endswith(".gguf"))  # as the host lists models/diffusion_models


def get_full_path(name: str, filename: str) -> str | None:
    files = (Path(folder, filename) for folder in folder_names_and_paths[name][0])
    return next((str(file) for file in files if file.is_file()), None)


def get_save_image_path(prefix: str, output: str, width: int = 0, height: int = 0) -> tuple[str, str, int, str, str]:
    folder = Path(output, prefix).parent.resolve()
    if not folder.is_relative_to(Path(output).resolve()):
        raise Exception("outside")
    folder.mkdir(parents=True, exist_ok=True)
    taken = len(list(folder.glob(f"{Path(prefix).name}_*")))
    return str(folder), Path(prefix).name, taken + 1, str(folder.relative_to(Path(output).resolve())), prefix
