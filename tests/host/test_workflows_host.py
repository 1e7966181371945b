"""The workflows that come with the pack, through the queue of a running ComfyUI."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path

import av
import pytest

ROOT = Path(__file__).parents[2]
NO_DOWNLOAD = {"talk": 1, "schedules": 2, "frames": 1}  # name -> videos it makes
SECONDS, FPS = 1.0, 16


def shortened(name: str) -> dict:
    """A workflow's API form, cut to a second so that the test is quick."""
    workflow = json.loads((ROOT / "workflows" / "api" / f"{name}.json").read_text(encoding="utf-8"))
    for node in workflow.values():
        if node["class_type"] == "JoyAvatarAudioEncode":
            node["inputs"]["max_seconds"] = SECONDS
    return workflow


@pytest.mark.parametrize("name", NO_DOWNLOAD)
def test_a_workflow_runs_as_it_comes(server, name):
    outputs = server.run(shortened(name))
    files = [path for shown in outputs.values() if "images" in shown for path in server.files(shown)]
    videos = [path for path in files if path.suffix == ".mp4"]
    assert len(videos) == NO_DOWNLOAD[name]
    for path in videos:
        with av.open(str(path)) as file:
            assert file.streams.video[0].frames == SECONDS * FPS
            assert file.streams.audio


def test_the_samples_lie_in_the_input_folder(server):
    assert '"joyavatar_ada.png"' in json.dumps(server.get("/object_info/LoadImage"))
    assert '"joyavatar_ada.flac"' in json.dumps(server.get("/object_info/LoadAudio"))


def test_the_livetalk_workflow_is_refused_only_for_files_that_are_missing(server):
    status, answer = server.post("/prompt", {"prompt": shortened("talk_livetalk")})
    assert status == 400
    problems = [problem for node in answer["node_errors"].values() for problem in node["errors"]]
    assert {problem["type"] for problem in problems} == {"value_not_in_list"}
    missing = {problem["extra_info"]["received_value"] for problem in problems}
    newer = {"LiveTalk-1.3B.safetensors", "wav2vec2-base-960h.safetensors"}  # 0.3.64 does not look into V3 lists
    assert missing - newer == {"wan_2.1_vae.safetensors", "umt5_xxl_fp8_e4m3fn_scaled.safetensors"}


def test_the_template_browser_lists_the_workflows_and_their_pictures(server):
    names = {path.stem for path in (ROOT / "workflows").glob("*.json")}
    assert set(server.get("/workflow_templates")["ComfyUI-JoyAvatar"]) == names
    for name in names:
        base = f"http://127.0.0.1:{server.port}/api/workflow_templates/ComfyUI-JoyAvatar/{name}"
        with urllib.request.urlopen(f"{base}.json", timeout=30) as answer:
            assert json.load(answer)["nodes"]
        with urllib.request.urlopen(f"{base}.jpg", timeout=30) as answer:
            assert answer.read(3) == b"\xff\xd8\xff"


def test_help_pages_pictures_and_translations_are_served(server):
    nodes = json.loads((ROOT / "tests" / "golden" / "node_schemas.json").read_text(encoding="utf-8"))
    for name in nodes:
        base = f"http://127.0.0.1:{server.port}/extensions/ComfyUI-JoyAvatar/docs"
        for path in (f"{name}.md", f"images/{name}.jpg"):
            with urllib.request.urlopen(f"{base}/{path}", timeout=30) as answer:
                assert answer.read()
    translated = server.get("/i18n")
    for language in ("en", "zh"):
        assert set(nodes) <= set(translated[language]["nodeDefs"])


def test_the_english_texts_are_those_of_the_nodes(server):
    english = json.loads((ROOT / "locales" / "en" / "nodeDefs.json").read_text(encoding="utf-8"))
    for name, texts in english.items():
        shown = server.get(f"/object_info/{name}")[name]
        entries = {**shown["input"]["required"], **shown["input"].get("optional", {})}
        assert texts["display_name"] == shown["display_name"] and texts["description"] == shown["description"]
        assert texts["inputs"] == {key: {"tooltip": entry[1]["tooltip"]} for key, entry in entries.items()}
        outputs = zip(shown["output_name"], shown["output_tooltips"], strict=True)
        assert list(texts["outputs"].values()) == [{"name": title, "tooltip": tip} for title, tip in outputs]
