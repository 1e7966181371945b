"""Tables of jobs: what a row becomes, and the one sentence where it becomes nothing."""

from __future__ import annotations

import json

import pytest

from joyavatar_core.batch.jobs import Job, Plan, plan_jobs
from joyavatar_core.batch.table import read_table
from joyavatar_core.cli.batch_columns import check_row, with_columns
from joyavatar_core.errors import AvatarError


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with portraits, voices and an odd name."""
    monkeypatch.chdir(tmp_path)
    for name in ("ada.png", "ben.png", "one.wav", "two.wav", "für Zoë, 猫 [1].png"):
        (tmp_path / name).write_bytes(b"")
    return tmp_path


def plan(folder, *lines: str, name: str = "jobs.csv", **defaults: object) -> Plan:
    (folder / name).write_text("\n".join(lines), encoding="utf-8")
    return plan_jobs([with_columns(row, defaults) for row in read_table(folder / name)], folder / "videos", check_row)


def names(folder, *lines: str) -> list[str]:
    found = plan(folder, *lines)
    assert not found.problems
    return [job.name for job in found.jobs]


def flags(job: Job, word: str) -> list[str]:
    return [flag for flag in job.flags if word in flag.partition("=")[0]]


def test_a_row_becomes_the_arguments_of_speak_with_absolute_paths(folder):
    [job] = plan(folder, "portrait,voice,seed,size", "ada.png,one.wav,3,32x32").jobs
    assert job.row == 2 and job.name == "ada-one" and job.video == folder / "videos" / "ada-one.mp4"
    assert {f"--portrait={folder / 'ada.png'}", f"--audio={folder / 'one.wav'}"} <= set(job.flags)
    assert {"--seed=3", "--size=32x32", f"--out={job.video}", f"--state={job.state}", "--resume"} <= set(job.flags)


def test_no_video_replaces_what_another_row_reads(folder):
    (folder / "videos").mkdir()
    (folder / "videos" / "b.mp4").write_bytes(b"a voice")
    found = plan(folder, "portrait,voice,out", "ada.png,one.wav,b", "ben.png,videos/b.mp4,c")
    assert [job.name for job in found.jobs] == ["c"]
    assert list(found.problems) == [2] and "b.mp4 would replace a portrait or a voice" in found.problems[2]


def test_words_in_place_of_files_stay_words(folder):
    [job] = plan(folder, "portrait,voice,weights,decoder", "ada.png,one.wav,embedded,vae").jobs
    assert {"--weights=embedded", "--decoder=vae"} <= set(job.flags)


@pytest.mark.parametrize("text", [
    "\ufeffportrait;voice\nada.png;one.wav\n",  # as spreadsheets write it
    "portrait\tvoice\nada.png\tone.wav\n",
    "Portrait, --audio \n# a comment, with a comma\n\n ada.png , one.wav \n,\n",
    'portrait,voice\r\n"ada.png","one.wav"\r\n',
])  # fmt: skip
def test_tables_as_spreadsheets_and_people_write_them(folder, text):
    assert names(folder, text) == ["ada-one"]


def test_jsonl_takes_numbers_truth_values_and_lists(folder):
    row = {"portrait": "ada.png", "voice": "one.wav", "seed": 3, "monitor": False, "lora": ["a=0.5", "b"], "psb": None}
    [job] = plan(folder, "# a comment", json.dumps(row), name="jobs.jsonl").jobs
    assert job.row == 2 and {"--seed=3", "--no-monitor"} <= set(job.flags)
    assert flags(job, "lora") == [f"--lora={folder / 'a'}=0.5", f"--lora={folder / 'b'}=1.0"]


def test_globs_become_pairs_and_a_name_with_brackets_is_itself(folder):
    assert names(folder, "portrait,voice", "[ab]*.png,*.wav") == ["ada-one", "ada-two", "ben-one", "ben-two"]
    assert names(folder, "portrait,voice", '"für Zoë, 猫 [1].png",one.wav') == ["für Zoë, 猫 [1]-one"]


def test_names_are_unique_however_a_file_system_compares_them(folder):
    (folder / "ADA.png").write_bytes(b"")
    rows = ["ada.png,one.wav", "ada.png,one.wav", "ADA.png,one.wav"]
    assert names(folder, "portrait,voice", *rows) == ["ada-one", "ada-one-2", "ADA-one-3"]


def test_long_names_leave_room_for_what_is_added_while_a_video_is_written(folder):
    long = "猫" * 80
    for ending in ("png", "wav"):
        (folder / f"{long}.{ending}").write_bytes(b"")
    first, second = names(folder, "portrait,voice", *[f"{long}.png,{long}.wav"] * 2)
    assert len(first.encode()) <= 180 and second == first + "-2"


def test_options_of_the_command_hold_for_rows_that_do_not_say_otherwise(folder):
    jobs = plan(folder, "voice,seed", "one.wav,", "two.wav,5", portrait="ada.png", seed="9").jobs
    assert [flags(job, "seed") for job in jobs] == [["--seed=9"], ["--seed=5"]]


def test_a_plot_is_drawn_beside_the_report_of_each_job(folder):
    jobs = plan(folder, "portrait,voice,plot", "ada.png,one.wav,yes", "ada.png,two.wav,no").jobs
    reports = folder / "videos" / "reports"
    assert [flags(job, "plot") for job in jobs] == [[f"--plot={reports / 'ada-one.png'}"], []]
    assert flags(jobs[1], "report") == [f"--report={reports / 'ada-two.json'}"]


def test_what_cannot_be_resumed_is_made_without_a_state(folder):
    [job] = plan(folder, "portrait,voice,reset-on-drift", "ada.png,one.wav,yes").jobs
    assert "--reset-on-drift" in job.flags and not flags(job, "state") and "--resume" not in job.flags


def test_jobs_share_an_avatar_where_they_name_the_same_model(folder):
    rows = ["ada.png,one.wav,", "ada.png,two.wav,embedded", "ada.png,two.wav,own.safetensors"]
    jobs = plan(folder, "portrait,voice,weights", *rows).jobs
    assert jobs[0].group == jobs[1].group != jobs[2].group


def test_a_fingerprint_tells_options_and_files_apart_but_not_the_folder(folder):
    def mark(seed: int) -> str:
        return plan(folder, "portrait,voice,seed", f"ada.png,one.wav,{seed}").jobs[0].fingerprint

    first = mark(1)
    rows = [with_columns(row, {}) for row in read_table(folder / "jobs.csv")]
    assert plan_jobs(rows, folder / "elsewhere", check_row).jobs[0].fingerprint == first == mark(1)
    assert mark(2) != first
    (folder / "one.wav").write_bytes(b"another")
    assert mark(1) != first


@pytest.mark.parametrize(("header", "row", "sentence"), [
    ("portrait,voice", "absent.png,one.wav", "The portrait 'absent.png' is missing; check the path."),
    ("portrait,voice", "ada.png,*.mp3", "No voice matches '*.mp3'; check the pattern."),
    ("portrait,voice", "ada.png,.", "is a folder"),
    ("portrait,voice", "ada.png,", "The row has no voice"),
    ("portrait,voice", "ada.png,-", "The voice '-' is missing"),
    ("portrait,voice", "ada.png,one.wav,3", "3 cells, the header 2"),
    ("portrait,voice,seed", "ada.png,one.wav,many", "'many' is not a seed"),
    ("portrait,voice,size", "ada.png,one.wav,big", "'big' is not a size"),
    ("portrait,voice,preset", "ada.png,one.wav,none", "--preset"),
    ("portrait,voice,monitor", "ada.png,one.wav,maybe", "monitor is 'maybe', expected yes or no."),
    ("portrait,voice,out", "ada.png,one.wav,../up.mp4", "expected the name of a file without a folder"),
    ("portrait,voice,out", "ada.png,*.wav,same", "makes 2 videos"),
    ("portrait,voice,state", "ada.png,one.wav,s", "'state' is not for tables"),
    ("portrait,voice,sede", "ada.png,one.wav,1", "'sede' is unknown; did you mean seed?"),
    ("portrait,voice,portrait", "ada.png,one.wav,1", "names a column twice"),
])  # fmt: skip
def test_a_bad_row_is_one_sentence(folder, header, row, sentence):
    try:
        found = plan(folder, header, row)
    except AvatarError as problem:
        said = str(problem)
    else:
        assert not found.jobs
        [said] = found.problems.values()
    assert sentence in said and said.endswith(".") and "\n" not in said


def test_bad_rows_do_not_stop_the_others_and_take_no_names(folder):
    rows = ["ada.png,one.wav,x,no", "ada.png,one.wav,x,1", "ben.png,one.wav,X.mp4,1"]
    found = plan(folder, "portrait,voice,out,seed", *rows)
    assert [job.row for job in found.jobs] == [3] and list(found.problems) == [2, 4]
    assert "row 3" in found.problems[4]


def test_bad_lines_of_jsonl_are_rows_of_their_own(folder):
    good = '{"portrait": "ada.png", "voice": "one.wav"}'
    bad = ['{"portrait"', "[1]", '{"portrait": 3, "voice": "one.wav"}']
    found = plan(folder, good, *bad, good, name="jobs.jsonl")
    assert [job.row for job in found.jobs] == [1, 5] and list(found.problems) == [2, 3, 4]


@pytest.mark.parametrize(("name", "content", "sentence"), [
    ("jobs.csv", b"", "has no rows"), ("jobs.csv", b"portrait,voice\n\n", "has no rows"),
    ("jobs.xlsx", b"PK", "expected a name that ends in .csv or .jsonl"), ("jobs.csv", b"\xff\xfe\x00", "is not UTF-8"),
    ("absent.csv", None, "cannot be read"),
])  # fmt: skip
def test_a_file_that_is_no_table_is_one_sentence(folder, name, content, sentence):
    if content is not None:
        (folder / name).write_bytes(content)
    with pytest.raises(AvatarError, match=sentence):
        read_table(folder / name)
