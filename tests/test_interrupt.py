"""Ctrl-C: whenever it comes, the process ends with exit code 130, without a traceback, and leaves no half-written file.

The moments do not depend on time: SIGINT comes while a certain module is imported, or at the n-th call of a function.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from data.verse import FORMS
from data.vocabulary import SPECIALS
from models import BACKBONES
from models.poet import Poet
from models.transformer_net import StyleNetworks
from tests.servers import ROOT, free_port
from tests.training import CONTEXT
from utils.images import save_image

AT_IMPORT = """
import os, runpy, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores it
class Finder:
    def find_spec(self, name, path, target=None):
        if name == wanted:
            os.kill(os.getpid(), signal.SIGINT)
            for _ in range(1000):  # it is noticed between two lines of Python
                pass
            print("swallowed")
wanted = sys.argv.pop(1)
sys.path.insert(0, os.getcwd())
sys.meta_path.insert(0, Finder())
runpy.run_path("main.py", run_name="__main__")
"""


@pytest.mark.parametrize(
    "module, words",
    [
        ("config", ["help"]),
        ("torch", ["generate"]),
        ("numpy._core.multiarray", ["generate"]),  # numpy makes an error of its own of one that it meets there
    ],
)
def test_while_a_module_is_imported(module, words):
    command = [sys.executable, "-c", AT_IMPORT, module, *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_while_the_page_is_served():
    """For visdom's see test_board_server.py."""
    words = [sys.executable, "-c", AT_IMPORT, "no module", "demo", f"--port={free_port()}"]
    process = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert "ends it" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    assert process.communicate() == ("", "") and process.returncode == 130


def _interrupted(argv: list[str], out: Path, at_call: int) -> None:
    """The program, to which SIGINT comes at its n-th call of a function; 0: never, the calls are counted."""
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))  # as the first lines of main.py do
    file = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for number in (1, 2):
        os.dup2(file, number)
    import cli
    import main

    calls = 0

    def count(*_: object) -> None:
        nonlocal calls
        calls += 1
        if calls == at_call:
            os.kill(os.getpid(), signal.SIGINT)

    sys.argv = ["main.py", *argv]
    sys.setprofile(count)
    code = cli.run(main.main)
    sys.setprofile(None)
    if not at_call:
        out.with_suffix(".calls").write_text(str(calls))
    sys.exit(code)


def ends(argv: list[str], out: Path, at_call: int) -> tuple[int, str]:
    process = CONTEXT.Process(target=_interrupted, args=(argv, out, at_call))
    process.start()
    process.join()
    return process.exitcode, out.read_text()


@pytest.mark.parametrize("command", ["stylize", "classify", "generate"])
def test_at_any_call_of_a_function(tmp_path, command):
    model = tmp_path / "net.safetensors"
    words = [command, f"--load={model}"]
    if command == "generate":
        Poet([*SPECIALS, *"春江花月夜，。"], embed=8, hidden=8, layers=1).save(model, forms=list(FORMS))
        words += ["--form=五绝", "--candidates=1", "--seed=1"]
    else:
        (tmp_path / "in").mkdir()
        noise = np.random.default_rng(0).integers(0, 256, (3, 40, 40, 3), np.uint8)
        for number, picture in enumerate(noise):
            save_image(tmp_path / "in" / f"{number}.png", picture)
        words += [str(tmp_path / "in"), f"--out={tmp_path / 'out'}"]
    if command == "stylize":
        StyleNetworks({"a": {"channels": (4, 4, 4), "blocks": 1}}).save(model)
    if command == "classify":
        BACKBONES["lenet"](["cat", "dog"]).save(model, image_size=32)
        words += ["--num_workers=2", "--explain"]
    code, told = ends(words, tmp_path / "told", 0)
    assert code == 0, told
    calls = int((tmp_path / "told.calls").read_text())
    for share in (0.01, 0.3, 0.9):
        code, told = ends(words, tmp_path / "told", 1 + int(share * calls))
        assert code == 130 and "Traceback" not in told and "Exception" not in told, (share, told)
        assert not list(tmp_path.rglob("*.part")), share


@pytest.mark.parametrize("times", [1, 2])
def test_who_swallows_it_ends_all_the_same(times):
    """Within seconds, or at once the second time; also if the swallower then raises something else."""
    code = (
        "import os, signal, sys, time; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "import cli; cli.SECONDS_TO_END = 0.2 if sys.argv.pop() == '1' else 1000\n"
        "def swallow():\n"
        "    print('go', flush=True)\n"
        "    while True:\n"
        "        try: time.sleep(60)\n"
        "        except BaseException: print('swallowed', flush=True)\n"
        "sys.exit(cli.run(swallow))"
    )
    command = [sys.executable, "-c", code, str(times)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "go\n"
    for _ in range(times):
        process.send_signal(signal.SIGINT)
        if times == 2:
            process.stdout.readline()
    assert process.communicate()[1] == "" and process.returncode == 130
