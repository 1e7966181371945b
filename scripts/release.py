"""Fill in what only a publisher knows: the repository's address and the publisher's id, before the registry is told.

    python scripts/release.py --repository https://github.com/OWNER/NAME --publisher ID

Writes into pyproject.toml: [project.urls] Repository, and in [tool.comfy] PublisherId and the addresses of icon and
banner, which are kept as paths in the repository. Nothing is sent. Run it on a checkout that is thrown away, or undo it
with `git checkout pyproject.toml`; the publish workflow runs it by itself.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

PROJECT = Path(__file__).parents[1] / "pyproject.toml"
GITHUB = re.compile(r"https://github\.com/([\w.-]+/[\w.-]+?)(?:\.git)?/?")
PICTURES = re.compile(r'^(Icon|Banner) = "(docs/[^"]+)"$', re.MULTILINE)


def filled(text: str, repository: str, publisher: str, branch: str = "main") -> str:
    """pyproject.toml with the addresses of `repository`. Raises ValueError, saying what is wrong with which."""
    found = GITHUB.fullmatch(repository)
    if not found:
        raise ValueError(f"The repository is '{repository}', expected https://github.com/OWNER/NAME.")
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]*", publisher):
        raise ValueError(f"The publisher is '{publisher}', expected the id from the registry, such as my-name.")
    if "[project.urls]" in text or "PublisherId" in text or len(PICTURES.findall(text)) != 2:
        raise ValueError("pyproject.toml is filled in already; undo it first (git checkout pyproject.toml).")
    raw = f"https://raw.githubusercontent.com/{found[1]}/{branch}"
    text = PICTURES.sub(rf'\1 = "{raw}/\2"', text)
    urls = f'[project.urls]\nRepository = "https://github.com/{found[1]}"\n\n'
    return text.replace("[tool.comfy]\n", f'{urls}[tool.comfy]\nPublisherId = "{publisher}"\n')


def main() -> int:
    top = argparse.ArgumentParser(description="Fill in the registry's fields of pyproject.toml.")
    top.add_argument("--repository", required=True, help="https://github.com/OWNER/NAME")
    top.add_argument("--publisher", required=True, help="the publisher's id in the registry")
    top.add_argument("--branch", default="main", help="where icon and banner are; default: main")
    chosen = top.parse_args()
    try:
        text = filled(PROJECT.read_text(encoding="utf-8"), chosen.repository, chosen.publisher, chosen.branch)
    except ValueError as problem:
        print(problem, file=sys.stderr)
        return 1
    PROJECT.write_text(text, encoding="utf-8")
    print(f"{PROJECT.name} is filled in for {chosen.repository}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
