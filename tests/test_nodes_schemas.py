"""Node ids, sockets and defaults are a promise to every saved workflow."""

from __future__ import annotations

import ast
import asyncio
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
GOLDEN = ROOT / "tests" / "golden" / "node_schemas.json"
HOST_PACKAGES = {"comfy", "comfy_api", "comfy_execution", "comfy_extras", "folder_paths", "server", "nodes"}


@pytest.fixture(scope="module")
def schemas(pack):
    return {node.__name__: node.define_schema() for node in pack.nodes.NODES}


def test_schemas_are_those_that_were_promised(schemas):
    from node_schemas import promise

    found = {schema.node_id: promise(schema.object_info()) for schema in schemas.values()}
    assert json.loads(json.dumps(found)) == json.loads(GOLDEN.read_text(encoding="utf-8"))


def test_every_node_is_listed_by_the_extension(pack):
    extension = asyncio.run(pack.comfy_entrypoint())
    assert [node.__name__ for node in asyncio.run(extension.get_node_list())] == list(json.loads(GOLDEN.read_text()))


def test_every_input_and_output_explains_itself(pack, schemas):
    for schema in schemas.values():
        assert schema.description and schema.display_name and schema.category.startswith("JoyAvatar")
        assert all(entry.options.get("tooltip") for entry in schema.inputs), schema.node_id


def test_execute_takes_exactly_the_inputs_of_the_schema(pack, schemas):
    import inspect

    for node in pack.nodes.NODES:
        taken = list(inspect.signature(node.execute).parameters)
        assert sorted(taken) == sorted(entry.id for entry in schemas[node.__name__].inputs), node.__name__


def test_only_the_nodes_folder_knows_the_host():
    files = [*ROOT.glob("joyavatar_core/**/*.py"), *ROOT.glob("scripts/**/*.py"), ROOT / "__init__.py"]
    for file in files:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            assert not {name.split(".")[0] for name in names} & HOST_PACKAGES, file


def test_renamed_nodes_are_registered_where_the_host_can_replace_nodes(pack, schemas, monkeypatch):
    import comfy_api.latest
    from comfy_api.latest import io

    registered = []

    class ComfyAPI:
        class node_replacement:
            @staticmethod
            async def register(entry):
                registered.append(entry)

    entry = {
        "old_node_id": "JoyAvatarBefore",
        "new_node_id": "JoyAvatarAudioEncode",
        "input_mapping": [{"new_id": "max_seconds", "old_id": "seconds"}],
    }
    monkeypatch.setattr(pack.nodes.renamed, "RENAMED", [*pack.nodes.renamed.RENAMED, entry])
    extension = asyncio.run(pack.comfy_entrypoint())
    asyncio.run(extension.on_load())  # a host without the class
    assert registered == []
    monkeypatch.setattr(io, "NodeReplace", lambda **arguments: arguments, raising=False)
    monkeypatch.setattr(comfy_api.latest, "ComfyAPI", ComfyAPI, raising=False)
    asyncio.run(extension.on_load())
    assert registered == pack.nodes.renamed.RENAMED


def test_renamed_nodes_lead_to_nodes_and_inputs_that_exist(pack, schemas):
    ids = {schema.node_id: {entry.id for entry in schema.inputs} for schema in schemas.values()}
    for entry in pack.nodes.renamed.RENAMED:
        assert entry["old_node_id"] not in ids
        assert {mapped["new_id"] for mapped in entry.get("input_mapping", [])} <= ids[entry["new_node_id"]]


def test_missing_packages_are_named_with_what_to_run(pack, monkeypatch, tmp_path):
    wanted = tmp_path / "requirements.txt"
    wanted.write_text("# what the pack needs\nnumpy>=1\nno-such-package-a>=2\n\nno_such_package_b\n")
    monkeypatch.setattr(pack, "REQUIREMENTS", wanted)
    with pytest.raises(ImportError) as refused:
        asyncio.run(pack.comfy_entrypoint())
    said = str(refused.value)
    assert "no-such-package-a, no_such_package_b is not installed" in said and "numpy" not in said
    assert f"pip install -r {wanted}" in said


def test_the_requirements_are_packages_that_are_looked_for(pack):
    pack.require_packages()  # all are installed where the tests run
