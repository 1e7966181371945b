"""The serve command's mistakes, each one sentence before a cluster is started."""

from __future__ import annotations

import socket
import sys

import pytest

from joyavatar_core.cli import main


@pytest.mark.parametrize(("flags", "sentence"), [
    (["--serve=here"], "HOST:PORT"), (["--sessions=0"], "number of sessions is 0"),
    (["--workers=0"], "number of workers is 0"), (["--viewers=-1"], "number of viewers is -1"),
    (["--sessions=2", "--cuda-graphs"], "CUDA graphs"), (["--seed=many"], "'many' is not a seed"),
    (["--weights=absent.safetensors"], "absent.safetensors"), (["--size=33x32"], "33"),
    (["--serve=192.0.2.1:8000"], "cannot be served at 192.0.2.1:8000"),
])  # fmt: skip
def test_a_mistake_is_one_sentence(flags, sentence, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main(["serve", *flags]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ") and sentence in error


def test_a_port_in_use_is_one_sentence(capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert main(["serve", f"--serve={taken.getsockname()[1]}"]) == 2
    assert "cannot be served" in capsys.readouterr().err


def test_ray_that_is_not_installed_is_one_sentence(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main(["serve", "--serve=0"]) == 2
    assert "pip install -e .[ray]" in capsys.readouterr().err
