import logging
import os
import subprocess
import sys

import pytest

from curation.models import vllm_process
from curation.models.vllm_client import VllmSettings, obstacle
from curation.models.vllm_process import cause, quiet

LOG = """\
INFO 11-21 loading
(EngineCore pid=7) ERROR 11-21 08:00:00 [core.py:1] EngineCore failed to start.
(EngineCore pid=7) Traceback (most recent call last):
(EngineCore pid=7)   File "x.py", line 1, in <module>
(EngineCore pid=7) torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 3.00 GiB.
Process EngineCore:
Traceback (most recent call last):
RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}
"""


def test_the_cause_is_the_innermost_error_with_a_hint(tmp_path):
    log = tmp_path / "log"
    log.write_text(LOG)
    told = cause(log, RuntimeError("Engine core initialization failed. See root cause above."))
    assert told.startswith("torch.OutOfMemoryError: CUDA out of memory.")
    assert "lower max_model_len" in told


def test_without_a_log_the_exception_speaks(tmp_path):
    assert cause(tmp_path / "none", ValueError("bad\nthing")) == "ValueError: bad"
    assert cause(tmp_path / "none") == "its process is gone"
    assert "no GPU here" in cause(tmp_path / "none", RuntimeError("Device string must not be empty"))


def test_quiet_catches_processes_and_restores(tmp_path, capfd):
    log = tmp_path / "log"
    sys.stdout.write("before\n")
    with quiet(log):
        os.write(1, b"from C\n")
        subprocess.run([sys.executable, "-c", "print('from a child')"], check=True)
        late = subprocess.Popen([sys.executable, "-c", "input(); print('late')"], stdin=subprocess.PIPE)
    sys.stdout.write("after\n")
    late.communicate(b"\n")
    printed = capfd.readouterr().out
    assert printed == "before\nafter\n"
    assert log.read_text() == "from C\nfrom a child\nlate\n"


def test_messages_go_to_the_log_and_nowhere_else(tmp_path, capfd):
    log = tmp_path / "log"
    handler = vllm_process.log_to(log)
    logging.getLogger("vllm.engine").warning("chatter")
    vllm_process.stop_logging(handler)
    logging.getLogger("vllm.engine").setLevel(logging.NOTSET)
    assert log.read_text() == "chatter\n"
    assert capfd.readouterr().err == ""


def test_the_users_environment_wins(monkeypatch):
    monkeypatch.setenv("VLLM_WORKER_MULTIPROC_METHOD", "fork")
    monkeypatch.delenv("VLLM_NO_USAGE_STATS", raising=False)
    monkeypatch.setattr(os, "environ", dict(os.environ))
    vllm_process.prepare_environment()
    assert os.environ["VLLM_WORKER_MULTIPROC_METHOD"] == "fork"
    assert os.environ["VLLM_NO_USAGE_STATS"] == "1"


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("tensor_parallel", 0),
        ("max_in_flight", 0),
        ("gpu_memory_utilization", 1.5),
        ("gpu_memory_utilization", 0.0),
        ("temperature", -1.0),
        ("kv_cache_gb", -1.0),
    ],
)
def test_settings_that_cannot_work(setting, value):
    with pytest.raises(ValueError, match=setting):
        VllmSettings(**{setting: value})


def test_what_is_written_beside_answers():
    assert VllmSettings(model="8B").model_id == "Qwen/Qwen3-VL-8B-Instruct"
    assert VllmSettings(model="/models/mine/").model_id == "mine"
    assert VllmSettings(model="someone/else").model_id == "someone/else"


def test_obstacles_name_what_mends_them(monkeypatch, tmp_path):
    monkeypatch.setenv("MEMENTO_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    here = {"vllm": False, "gpus": 0}
    monkeypatch.setattr("curation.models.vllm_client.available", lambda name: here["vllm"])
    monkeypatch.setattr(vllm_process, "gpus_here", lambda: here["gpus"])
    assert "[caption]" in obstacle(VllmSettings())
    here["vllm"] = True
    assert obstacle(VllmSettings(tensor_parallel=2)) == "0 GPUs here, 2 needed"
    here["gpus"] = 2
    assert "memento weights pull qwen3_vl_8b" in obstacle(VllmSettings(tensor_parallel=2))
    assert obstacle(VllmSettings(allow_download=True)) == ""
