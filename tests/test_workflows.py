"""The workflows that come with the pack, held to the nodes' schemas: no host needed."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
WORKFLOWS = ROOT / "workflows"
ASSETS = ROOT / "joyavatar_core" / "assets"
SCHEMAS = json.loads((ROOT / "tests" / "golden" / "node_schemas.json").read_text())
NAMES = ["frames", "schedules", "talk", "talk_avatarforcing", "talk_livetalk"]
NO_DOWNLOAD = ["frames", "schedules", "talk"]
TITLE = 30  # pixels of a node's title bar, above its position
NOTES = {"MarkdownNote", "Note"}
SAMPLE_PREFIX = "joyavatar_"  # as nodes/samples.py puts them into the host's input folder


def ui(name: str) -> dict:
    return json.loads((WORKFLOWS / f"{name}.json").read_text(encoding="utf-8"))


def api(name: str) -> dict:
    return json.loads((WORKFLOWS / "api" / f"{name}.json").read_text(encoding="utf-8"))


def inputs_of(class_type: str) -> dict[str, dict]:
    return {**SCHEMAS[class_type]["required"], **SCHEMAS[class_type]["optional"]}


def own_nodes(workflow: dict) -> dict[str, dict]:
    return {key: node for key, node in workflow.items() if node["class_type"].startswith("JoyAvatar")}


def is_socket(entry: dict) -> bool:
    return "default" not in entry and entry["type"] not in ("COMBO", "INT", "FLOAT", "STRING", "BOOLEAN")


def test_every_workflow_is_there_in_both_formats_with_a_thumbnail():
    assert sorted(path.stem for path in WORKFLOWS.glob("*.json")) == NAMES
    assert sorted(path.stem for path in (WORKFLOWS / "api").glob("*.json")) == NAMES
    assert sorted(path.stem for path in WORKFLOWS.glob("*.jpg")) == NAMES


def test_no_folder_hides_the_workflows_from_the_hosts_template_browser():
    assert not [name for name in ("example", "examples", "example_workflows") if (ROOT / name).exists()]


@pytest.mark.parametrize("name", NAMES)
def test_own_nodes_have_exactly_the_inputs_of_their_schema(name):
    for node in own_nodes(api(name)).values():
        schema = SCHEMAS[node["class_type"]]
        given = set(node["inputs"])
        assert given <= set(inputs_of(node["class_type"])), node["class_type"]
        assert set(schema["required"]) <= given, node["class_type"]


@pytest.mark.parametrize("name", NAMES)
def test_every_value_is_one_its_input_takes(name):
    for node in own_nodes(api(name)).values():
        for key, value in node["inputs"].items():
            entry = inputs_of(node["class_type"])[key]
            if isinstance(value, list):
                continue
            assert not is_socket(entry)
            if entry["type"] == "COMBO" and key not in ("model_name", "base_model"):
                assert value in entry["options"]
            elif entry["type"] in ("INT", "FLOAT"):
                assert entry["min"] <= value <= entry["max"]


@pytest.mark.parametrize("name", NAMES)
def test_links_join_an_output_to_an_input_of_its_type(name):
    workflow = api(name)
    for node in own_nodes(workflow).values():
        for key, value in node["inputs"].items():
            if not isinstance(value, list):
                continue
            source, slot = workflow[value[0]], value[1]
            if source["class_type"] in SCHEMAS:
                made = SCHEMAS[source["class_type"]]["outputs"][slot][1]
                assert made in inputs_of(node["class_type"])[key]["type"].split(","), (node["class_type"], key)


@pytest.mark.parametrize("name", NAMES)
def test_the_editors_links_have_the_types_of_both_ends(name):
    workflow = ui(name)
    nodes = {node["id"]: node for node in workflow["nodes"]}
    for link, source, out, target, into, kind in workflow["links"]:
        output, entry = nodes[source]["outputs"][out], nodes[target]["inputs"][into]
        assert link in output["links"] and entry["link"] == link
        assert output["type"] == kind and kind in entry["type"].split(",")


@pytest.mark.parametrize("name", NAMES)
def test_the_editors_nodes_have_the_widgets_and_outputs_of_their_schema(name):
    for node in ui(name)["nodes"]:
        if node["type"] not in SCHEMAS:
            continue
        schema, entries = SCHEMAS[node["type"]], inputs_of(node["type"])
        widgets = [key for key, entry in entries.items() if not is_socket(entry)]
        extra = sum(bool(entry.get("control_after_generate")) for entry in entries.values())
        assert len(node.get("widgets_values", [])) == len(widgets) + extra, node["type"]
        assert {entry["name"] for entry in node.get("inputs", [])} == set(entries), node["type"]
        assert [[out["name"], out["type"]] for out in node["outputs"]] == [out[:2] for out in schema["outputs"]]


@pytest.mark.parametrize("name", NAMES)
def test_the_api_file_says_the_same_as_the_editors(name):
    workflow, shown = api(name), ui(name)
    nodes = {str(node["id"]): node for node in shown["nodes"] if node["type"] not in NOTES}
    assert {key: node["class_type"] for key, node in workflow.items()} == {k: n["type"] for k, n in nodes.items()}
    drawn = {
        (str(target), nodes[str(target)]["inputs"][into]["name"]): [str(source), out]
        for _, source, out, target, into, _ in shown["links"]
    }
    sent = {(k, i): v for k, node in workflow.items() for i, v in node["inputs"].items() if isinstance(v, list)}
    assert sent == drawn
    for key, node in workflow.items():
        values = nodes[key].get("widgets_values", [])
        assert all(value in values for value in node["inputs"].values() if not isinstance(value, list))


@pytest.mark.parametrize("name", NAMES)
def test_files_are_the_packs_own_samples(name):
    for node in api(name).values():
        for class_type, key, folder in (("LoadImage", "image", "portraits"), ("LoadAudio", "audio", "voices")):
            if node["class_type"] == class_type:
                value = node["inputs"][key]
                assert value.startswith(SAMPLE_PREFIX)
                assert (ASSETS / folder / value.removeprefix(SAMPLE_PREFIX)).is_file()


@pytest.mark.parametrize("name", NO_DOWNLOAD)
def test_the_embedded_workflows_need_no_model_file(name):
    loaders = {node["class_type"] for node in api(name).values() if node["class_type"].endswith("Loader")}
    assert loaders == {"JoyAvatarModelLoader"}
    assert all(n["inputs"]["model_name"] == "embedded" for n in api(name).values() if "model_name" in n["inputs"])
    assert not any(node["properties"].get("models") for node in ui(name)["nodes"])


def test_linked_models_are_the_ones_chosen_and_livetalk_is_not_linked_for_download():
    nodes = [node for node in ui("talk_livetalk")["nodes"] if node["properties"].get("models")]
    assert {node["type"] for node in nodes} == {"VAELoader", "CLIPLoader", "AudioEncoderLoader"}
    for node in nodes:
        [model] = node["properties"]["models"]
        assert set(model) == {"name", "url", "directory"} and model["url"].startswith("https://huggingface.co/")
        assert node["widgets_values"][0] == model["name"]


def test_terms_that_conflict_are_said_inside_the_graph():
    notes = " ".join(node["widgets_values"][0] for node in ui("talk_livetalk")["nodes"] if node["type"] in NOTES)
    assert "CC BY-NC-SA 4.0" in notes and "non-commercial" in notes


@pytest.mark.parametrize("name", NAMES)
def test_every_workflow_has_a_note_and_every_node_stands_in_one_coloured_group(name):
    workflow = ui(name)
    assert any(node["type"] in NOTES for node in workflow["nodes"])
    for node in workflow["nodes"]:
        groups = [group for group in workflow["groups"] if inside(box(node), group["bounding"])]
        assert len(groups) == 1 and groups[0]["color"], node["type"]


@pytest.mark.parametrize("name", NAMES)
def test_nothing_overlaps(name):
    workflow = ui(name)
    for a, b in combinations(workflow["nodes"], 2):
        assert not overlap(box(a), box(b)), (a["type"], b["type"])
    for a, b in combinations(workflow["groups"], 2):
        assert not overlap(a["bounding"], b["bounding"]), (a["title"], b["title"])


def box(node: dict) -> list[float]:
    (x, y), (width, height) = node["pos"], node["size"]
    return [x, y - TITLE, width, height + TITLE]


def inside(a: list[float], b: list[float]) -> bool:
    return a[0] >= b[0] and a[1] >= b[1] and a[0] + a[2] <= b[0] + b[2] and a[1] + a[3] <= b[1] + b[3]


def overlap(a: list[float], b: list[float]) -> bool:
    return a[0] < b[0] + b[2] and b[0] < a[0] + a[2] and a[1] < b[1] + b[3] and b[1] < a[1] + a[3]


def test_app_mode_of_talk_shows_portrait_voice_seed_and_the_video():
    graph = ui("talk")
    shown, nodes = graph["extra"]["linearData"], {node["id"]: node for node in graph["nodes"]}
    inputs = [(nodes[number]["type"], name) for number, name in shown["inputs"]]
    assert inputs == [("LoadImage", "image"), ("LoadAudio", "audio"), ("JoyAvatarStreamingSampler", "seed")]
    assert [nodes[number]["type"] for number in shown["outputs"]] == ["JoyAvatarStreamToVideo"]


def test_the_blueprint_holds_the_nodes_of_a_talk_with_widgets_of_their_schemas():
    [path] = (ROOT / "subgraphs").glob("*.json")
    blueprint = json.loads(path.read_text(encoding="utf-8"))
    [subgraph], [node] = blueprint["definitions"]["subgraphs"], blueprint["nodes"]
    assert node["type"] == subgraph["id"] and subgraph["name"] == path.stem
    assert {"image", "audio", "seed"} <= {entry["name"] for entry in node["inputs"]}
    assert [output["type"] for output in node["outputs"]] == ["JOYAVATAR_STREAM"]
    for inner in subgraph["nodes"]:
        entries = inputs_of(inner["type"])
        extra = sum(bool(entry.get("control_after_generate")) for entry in entries.values())
        widgets = [key for key, entry in entries.items() if not is_socket(entry)]
        assert len(inner.get("widgets_values", [])) == len(widgets) + extra, inner["type"]
