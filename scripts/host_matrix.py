"""Run tests/host in one or several ComfyUI trees with one or several versions of its page.

    python scripts/host_matrix.py --host ~/comfy/ComfyUI --host ~/comfy/ComfyUI-0.8.0 --page 1.35.9 --page 1.58.1

Pages are installed side by side below --work. --python names a Python that can run the hosts; without it an environment
is made below --work for each host from its requirements.txt (several GB). Further arguments go to pytest, after `--`.
Prints a line for each cell and returns the number of cells that failed. The whole output of a cell is in
tests-<host>-<page>.log below --work while it runs.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]
REPORTED = ("FAILED", "ERROR", "SKIPPED", "E  ")  # beginnings of pytest's lines that are printed below a cell's
PAGE = "comfyui-frontend-package"
BIN = "Scripts/python.exe" if sys.platform == "win32" else "bin/python"


def host_version(tree: Path) -> str:
    return re.search(r'"(.+)"', (tree / "comfyui_version.py").read_text(encoding="utf-8"))[1]


def pip(python: Path | str, *arguments: str) -> None:
    subprocess.run([str(python), "-m", "pip", "install", "--quiet", *arguments], check=True)


def environment(tree: Path, work: Path) -> Path:
    """An environment of a host's own requirements, made once."""
    folder = work / f"env-{host_version(tree)}"
    python = folder / BIN
    if not python.is_file():
        venv.create(folder, with_pip=True)
        pip(python, "-r", str(tree / "requirements.txt"), "-r", str(ROOT / "requirements.txt"))
    return python


def page_root(version: str, work: Path) -> Path:
    """The files of a page's version, installed once."""
    folder = work / f"page-{version}"
    if not folder.is_dir():
        pip(sys.executable, "--no-deps", "--target", str(folder), f"{PAGE}=={version}")
    return folder / "comfyui_frontend_package" / "static"


def main() -> int:
    top = argparse.ArgumentParser(description="Run tests/host for every host and every page given.")
    top.add_argument("--host", action="append", type=Path, required=True, help="a ComfyUI tree; may be repeated")
    top.add_argument("--page", action="append", required=True, help=f"a version of {PAGE}; may be repeated")
    top.add_argument("--python", type=Path, help="a Python that runs all hosts; default: an environment for each")
    top.add_argument("--work", type=Path, default=ROOT / "out" / "hosts", help="where pages and environments are kept")
    top.add_argument("pytest", nargs="*", help="further arguments for pytest")
    chosen = top.parse_args()
    work = chosen.work.expanduser().resolve()
    work.mkdir(parents=True, exist_ok=True)
    failed = 0
    for tree in (tree.expanduser().resolve() for tree in chosen.host):
        python = chosen.python or environment(tree, work)
        for version in chosen.page:
            found = {"COMFYUI_PATH": str(tree), "COMFYUI_PYTHON": str(python)}
            found["COMFYUI_FRONT_END"] = str(page_root(version, work))
            command = [sys.executable, "-m", "pytest", "-q", str(ROOT / "tests" / "host"), *chosen.pytest]
            log = work / f"tests-{host_version(tree)}-{version}.log"
            with log.open("w", encoding="utf-8") as sink:
                code = subprocess.call(
                    command, cwd=ROOT, env={**os.environ, **found}, stdout=sink, stderr=subprocess.STDOUT
                )
            lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or [str(log)]
            counts = [line for line in lines if re.search(r"\d (passed|failed|skipped|error)", line)] or lines
            print(f"ComfyUI {host_version(tree)}, page {version}: {counts[-1].strip('= ')}")
            print(*(line for line in lines if line.startswith(REPORTED)), sep="\n", flush=True)
            failed += bool(code)
    return failed


if __name__ == "__main__":
    sys.exit(main())
