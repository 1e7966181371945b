"""Write the English texts that the nodes' schemas hold to the other places where the host looks for them.

    python scripts/node_texts.py            # after a tooltip was changed or an input was added
    python scripts/node_texts.py --check    # say what is out of date, change nothing, return 1

The schema of a node (nodes/*.py) is the one source. From it come locales/en/nodeDefs.json and the tables of inputs and
outputs at the end of web/docs/<NodeId>.md. Other languages are written by hand; a test names what they lack.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
LOCALE = ROOT / "locales" / "en" / "nodeDefs.json"
TABLES = "\n| input | |\n"  # where the generated end of a help page begins


def schemas() -> list:
    """The schemas of all nodes, over the stand-in of the host's API."""
    sys.path.insert(0, str(ROOT / "tests" / "fake_comfy"))
    spec = importlib.util.spec_from_file_location("joyavatar_texts", ROOT / "__init__.py")
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return [node.define_schema() for node in importlib.import_module(f"{spec.name}.nodes").NODES]


def texts(schema) -> dict[str, object]:
    """A node's entry of nodeDefs.json."""
    return {
        "display_name": schema.display_name,
        "description": schema.description,
        "inputs": {entry.id: {"tooltip": entry.options["tooltip"]} for entry in schema.inputs},
        "outputs": {
            str(number): {"name": output.name, "tooltip": output.tooltip}
            for number, output in enumerate(schema.outputs)
        },
    }


def tables(schema) -> str:
    """The end of a help page."""
    inputs = [f"| `{entry.id}` | {entry.options['tooltip']} |" for entry in schema.inputs]
    outputs = [f"| **{output.name}** | {output.tooltip} |" for output in schema.outputs]
    return "\n".join(["", "| input | |", "|---|---|", *inputs, "", "| output | |", "|---|---|", *outputs, ""])


def generated() -> dict[Path, str]:
    """Every file with the text it should have."""
    found = schemas()
    locale = json.dumps({schema.node_id: texts(schema) for schema in found}, indent=2, ensure_ascii=False) + "\n"
    files = {LOCALE: locale}
    for schema in found:
        page = ROOT / "web" / "docs" / f"{schema.node_id}.md"
        files[page] = page.read_text(encoding="utf-8").partition(TABLES)[0] + tables(schema)
    return files


def main() -> int:
    top = argparse.ArgumentParser(description="Write the nodes' English texts to locales/en and web/docs.")
    top.add_argument("--check", action="store_true", help="change nothing; return 1 where a file is out of date")
    check = top.parse_args().check
    old = [path for path, text in generated().items() if path.read_text(encoding="utf-8") != text]
    for path, text in generated().items() if old and not check else ():
        path.write_text(text, encoding="utf-8")
    for path in old:
        print(f"{'out of date' if check else 'written'}: {path.relative_to(ROOT)}")
    return 1 if old and check else 0


if __name__ == "__main__":
    sys.exit(main())
