"""What a ComfyUI user and the registry see besides the nodes: texts, help pages, pictures, metadata."""

from __future__ import annotations

import ast
import importlib.util
import json
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
from PIL import Image

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    tomllib = pytest.importorskip("tomli", reason="Python 3.10 needs tomli to read pyproject.toml")

ROOT = Path(__file__).parents[1]
SCHEMAS = json.loads((ROOT / "tests" / "golden" / "node_schemas.json").read_text(encoding="utf-8"))
HELP = ROOT / "web" / "docs"

spec = importlib.util.spec_from_file_location("release", ROOT / "scripts" / "release.py")
release = importlib.util.module_from_spec(spec)
spec.loader.exec_module(release)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_every_node_input_and_output_has_a_text(language):
    texts = json.loads((ROOT / "locales" / language / "nodeDefs.json").read_text(encoding="utf-8"))
    assert set(texts) == set(SCHEMAS)
    for name, schema in SCHEMAS.items():
        node = texts[name]
        assert node["display_name"] and node["description"]
        assert set(node["inputs"]) == {*schema["required"], *schema["optional"]}
        assert all(entry["tooltip"] for entry in node["inputs"].values())
        assert set(node["outputs"]) == {str(number) for number in range(len(schema["outputs"]))}


def test_chinese_texts_are_chinese():
    texts = json.loads((ROOT / "locales" / "zh" / "nodeDefs.json").read_text(encoding="utf-8"))
    for node in texts.values():
        for text in [node["description"], *(entry["tooltip"] for entry in node["inputs"].values())]:
            assert re.search(r"[\u4e00-\u9fff]", text), text


def test_categories_and_sockets_have_a_text_in_both_languages():
    main = [json.loads((ROOT / "locales" / name / "main.json").read_text(encoding="utf-8")) for name in ("en", "zh")]
    categories = {part for schema in SCHEMAS.values() for part in schema["category"].split("/")}
    sockets = {out[1] for schema in SCHEMAS.values() for out in schema["outputs"] if out[1].startswith("JOYAVATAR")}
    for texts in main:
        assert set(texts["nodeCategories"]) == categories
        assert set(texts["dataTypes"]) == sockets


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_node_has_a_help_page_with_a_small_picture_and_all_inputs(name):
    page = (HELP / f"{name}.md").read_text(encoding="utf-8")
    assert f"(images/{name}.jpg)" in page
    picture = HELP / "images" / f"{name}.jpg"
    assert picture.stat().st_size < 60_000 and Image.open(picture).width >= 200
    for key in {**SCHEMAS[name]["required"], **SCHEMAS[name]["optional"]}:
        assert f"| `{key}` |" in page


def test_no_help_page_is_of_a_node_that_is_gone():
    assert {path.stem for path in HELP.glob("*.md")} == set(SCHEMAS)


def test_the_release_script_gives_the_registry_what_it_asks_for():
    source = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    project = tomllib.loads(release.filled(source, "https://github.com/someone/pack.git", "someone"))
    comfy = project["tool"]["comfy"]
    assert comfy["DisplayName"] and comfy["PublisherId"] == "someone" and comfy["requires-comfyui"]
    assert "comfyui" not in project["project"]["name"]
    assert project["project"]["urls"]["Repository"] == "https://github.com/someone/pack"
    for key in ("Icon", "Banner"):
        host, path = comfy[key].split("/someone/pack/main/")
        assert host == "https://raw.githubusercontent.com" and (ROOT / path).is_file()
    version = project["project"]["version"]
    assert f"## {version}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("repository", "publisher", "said"),
    [
        ("git@github.com:a/b", "a", "expected https://github.com/OWNER/NAME"),
        ("https://github.com/a/b", "", "expected the id from the registry"),
    ],
)
def test_the_release_script_refuses_what_is_no_address(repository, publisher, said):
    source = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    with pytest.raises(ValueError, match=said):
        release.filled(source, repository, publisher)
    with pytest.raises(ValueError, match="filled in already"):
        release.filled(release.filled(source, "https://github.com/a/b", "a"), "https://github.com/a/b", "a")


def test_the_icon_is_square_and_the_banner_wide():
    icon, banner = (Image.open(ROOT / "docs" / "images" / name) for name in ("icon.png", "banner.jpg"))
    assert icon.width == icon.height <= 400
    assert banner.width / banner.height == pytest.approx(21 / 9, rel=0.01)


def test_what_the_nodes_read_is_published():
    ignored = (ROOT / ".comfyignore").read_text(encoding="utf-8").split()
    for needed in ("nodes", "joyavatar_core", "workflows", "web", "locales", "requirements.txt", "__init__.py"):
        assert not any(needed == line.strip("/") for line in ignored)
        assert (ROOT / needed).exists()


def test_every_workflow_has_its_picture_in_the_docs():
    page = (ROOT / "docs" / "workflows.md").read_text(encoding="utf-8")
    for path in (ROOT / "workflows").glob("*.json"):
        picture = ROOT / "docs" / "images" / f"workflow_{path.stem}.jpg"
        assert f"images/{picture.name}" in page and picture.stat().st_size < 150_000


def test_the_english_texts_are_those_of_the_schemas():
    script = ROOT / "scripts" / "node_texts.py"
    run = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr + "run: python scripts/node_texts.py"


def sentences(folder: Path) -> dict[str, bool]:
    """Every text in the code of a file or folder with {} for its values, and whether it is an error's."""
    found = {}
    for path in [folder] if folder.is_file() else folder.rglob("*.py"):
        for part in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            error = isinstance(part, ast.Call) and getattr(part.func, "id", "") == "AvatarError" and part.args
            text = written(part.args[0] if error else part)
            if text:
                found[text] = found.get(text, False) or bool(error)
    return found


def written(part: ast.AST) -> str | None:
    if isinstance(part, ast.Constant) and isinstance(part.value, str):
        return part.value
    if isinstance(part, ast.JoinedStr):
        return "".join(piece.value if isinstance(piece, ast.Constant) else "{}" for piece in part.values)
    return None


# Parts of the core whose sentences nodes show, and those of them that only the command line can cause.
SHOWN = ["checkpoints", "framing", "config.py", "audio/source.py", "video/portrait.py", "vae/state_dicts.py"]
SHOWN += ["recording/interval.py", "recording/files.py", "recording/snapshot.py", "monitoring/report.py"]
SHOWN += [f"sampling/{name}.py" for name in ("mci", "presets", "psb", "stream", "urcr")]
NOT_SHOWN = {"'{}' was not written because the state dict does not fit its config: {}."}
NOT_SHOWN |= {"Cannot write '{}' ({}); expected a folder that exists and has room.", "{}, {}"}
NOT_SHOWN |= {"{} with values from {} to {}, {}"}  # portraits that are given as arrays


def unquoted(texts: Iterable[str]) -> set[str]:
    return {text.replace("'{}'", "{}") for text in texts}


def test_what_nodes_say_is_translated_and_translations_are_of_what_is_said():
    core = ROOT / "joyavatar_core"
    texts = json.loads((ROOT / "web" / "texts" / "zh.json").read_text(encoding="utf-8"))
    nodes = sentences(ROOT / "nodes")
    shown = {**nodes, **{text: error for name in SHOWN for text, error in sentences(core / name).items()}}
    errors = unquoted(text for text, error in shown.items() if error) - unquoted(NOT_SHOWN)
    assert sorted(errors - unquoted(texts)) == []
    templates = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "workflows").glob("*.json"))
    said = "\n".join([*nodes, *sentences(core), templates])
    for english, target in texts.items():
        assert english.count("{}") > max((int(n) for n in re.findall(r"\{(\d+)\}", target)), default=-1), english
        assert re.search(r"[\u4e00-\u9fff]", target), english
        for fragment in re.split(r"\{\}|: ", english):
            assert fragment.strip(" ;,.") in said, (english, fragment)


def test_what_users_read_says_connect_and_names_nodes_as_they_are_titled():
    for text in [*sentences(ROOT / "nodes"), *sentences(ROOT / "joyavatar_core")]:
        assert not re.search(r"\b(un)?wire[ds]?\b", text), text
    nodes = json.loads((ROOT / "locales" / "zh" / "nodeDefs.json").read_text(encoding="utf-8"))
    titles = {node["display_name"] for node in nodes.values()}
    texts = json.loads((ROOT / "web" / "texts" / "zh.json").read_text(encoding="utf-8"))
    tooltips = [entry["tooltip"] for node in nodes.values() for entry in node["inputs"].values()]
    for target in [*texts.values(), *tooltips]:
        assert set(re.findall(r"“([^”]*JoyAvatar[^”]*)”", target)) <= titles, target


NAMES = ["## LiveTalk-1.3B, 512 × 512", "JoyAvatar", "6 · JoyAvatar", "|---|---|---|"]  # and rows with names alone


def test_titles_and_notes_of_the_templates_are_translated():
    texts = json.loads((ROOT / "web" / "texts" / "zh.json").read_text(encoding="utf-8"))
    patterns = [re.compile(".*?".join(map(re.escape, english.split("{}"))) + "$") for english in texts]
    for path in (ROOT / "workflows").glob("*.json"):
        graph = json.loads(path.read_text(encoding="utf-8"))
        notes = [node["widgets_values"][0] for node in graph["nodes"] if node["type"] == "MarkdownNote"]
        labels = [entry.get("label", "") for node in graph["nodes"] for entry in node["inputs"]]
        titles = [titled.get("title", "") for titled in (*graph["nodes"], *graph["groups"])]
        for line in {*"\n".join(notes).split("\n"), *labels, *titles} - {"", *NAMES}:
            assert re.search(r"^\| \[.*Apache-2.0 \|$", line) or any(each.match(line) for each in patterns), line
