"""The run's report: complete, plain JSON, written whole."""

import json
import subprocess
import sys
from fractions import Fraction
from types import SimpleNamespace

import pytest

from joyavatar_core.errors import AvatarError
from joyavatar_core.monitoring.report import RunReport, peak_rss_bytes


def block(index: int) -> SimpleNamespace:
    return SimpleNamespace(index=index, steps=4, reset=index == 1, max_position=20, seconds=0.5, latents=object())


def test_peak_rss_counts_bytes_and_sees_an_allocation():
    code = (  # in a process of its own: an earlier peak of this one would hide the allocation
        "from joyavatar_core.monitoring.report import peak_rss_bytes as peak\n"
        "before = peak(); ballast = b'1' * 100_000_000; print(before, peak())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    before, after = map(int, done.stdout.split())
    assert 1e6 < before < 1e9
    assert 90e6 < after - before < 150e6
    assert peak_rss_bytes() > before


def test_the_report_read_back_holds_every_block_and_the_totals(tmp_path):
    report = RunReport(fps=Fraction(25, 2), weights="embedded", trained=False, settings={"psb": {"first": 8}})
    report.add(block(0), frames=9)
    report.add(block(1), frames=12)
    report.audio_seconds = 1.3
    read = json.loads(report.to_json(tmp_path / "r.json").read_text())
    assert read["blocks"][1] == {"index": 1, "steps": 4, "reset": True, "max_position": 20, "seconds": 0.5}
    assert len(read["blocks"]) == 2
    assert (read["frames"], read["fps"], read["audio_seconds"]) == (21, 12.5, 1.3)
    assert (read["weights"], read["trained"]) == ("embedded", False)
    assert read["settings"] == {"psb": {"first": 8}}
    assert read["wall_seconds"] > 0
    assert read["peak_rss_bytes"] > 0


def test_writing_again_replaces_and_leaves_nothing_else(tmp_path):
    report = RunReport(fps=16, weights="w", trained=True)
    report.to_json(tmp_path / "r.json")
    report.add(block(0))
    report.to_json(tmp_path / "r.json")
    assert [p.name for p in tmp_path.iterdir()] == ["r.json"]
    assert len(json.loads((tmp_path / "r.json").read_text())["blocks"]) == 1


def test_a_place_that_does_not_exist_is_one_sentence(tmp_path):
    with pytest.raises(AvatarError, match=r"report .*r\.json cannot be written: No such file"):
        RunReport(fps=16, weights="w", trained=True).to_json(tmp_path / "no" / "r.json")


def test_windows_tells_the_peak_through_psutil(monkeypatch):
    def absent(*_, **__):
        raise FileNotFoundError

    counted = SimpleNamespace(Process=lambda: SimpleNamespace(memory_info=lambda: SimpleNamespace(peak_wset=12345)))
    monkeypatch.setattr("builtins.open", absent)
    monkeypatch.setitem(sys.modules, "resource", None)
    monkeypatch.setitem(sys.modules, "psutil", counted)
    assert peak_rss_bytes() == 12345
