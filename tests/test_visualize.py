"""utils/visualize.py: what a learner may plot, with a visdom server and without."""

import base64
import io
import json
import signal

import numpy as np
import pytest
import torch
from PIL import Image

from tests.servers import Server, free_port
from utils.visualize import Visualizer, env_name, to_pixels


def test_everything_a_learner_may_plot(tmp_path, capfd):
    server = Server(tmp_path, free_port())
    capfd.readouterr()  # the files of visdom's page may have been fetched
    board = Visualizer(env="lesson", port=server.port)
    board.plot("loss", 3.0)
    board.plot("loss", 2.0)
    board.plot("loss", 2.5, x=1, legend="val")
    board.plot_many({"accuracy": np.float32(0.5), "recall": 0.25}, x=7)
    board.img("cat", np.full((8, 9, 3), 2.0))  # clamped to 1
    board.hist("weights", np.random.default_rng(0).normal(size=50))
    board.log("notes", "a < b")
    board.log("notes", "second")
    board.save()
    with pytest.raises(ValueError, match="shape"):
        board.img("bad", np.zeros((2, 3, 4, 5)))
    windows = server.windows("lesson")
    traces = {name: {t["name"]: t for t in windows[name]["content"]["data"]} for name in ("loss", "recall")}
    assert (traces["loss"]["train"]["x"], traces["loss"]["train"]["y"]) == ([0, 1], [3, 2])
    assert (traces["loss"]["val"]["x"], traces["loss"]["val"]["y"]) == ([1], [2.5])
    assert (traces["recall"]["train"]["x"], windows["recall"]["title"]) == ([7], "recall")
    picture = base64.b64decode(windows["image cat"]["content"]["src"].split(",")[1])
    assert (np.asarray(Image.open(io.BytesIO(picture))) == 255).all()
    assert "a &lt; b" in windows["text notes"]["content"] and "second" in windows["text notes"]["content"]
    assert sum(windows["histogram weights"]["content"]["data"][0]["y"]) == 50
    assert set(json.loads((tmp_path / "lesson.json").read_text())["jsons"]) == set(windows)
    server.stop(signal.SIGKILL)
    board.plot("loss", 1.0)  # nobody listens any more
    Visualizer(port=server.port).plot("loss", 1.0)
    assert capfd.readouterr() == ("", "")


def test_pictures_of_any_layout():
    rgb = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    for image in (rgb, rgb.transpose(2, 0, 1), torch.tensor(rgb).permute(2, 0, 1).float() / 255, rgb / 255):
        assert (to_pixels(image) == rgb.transpose(2, 0, 1)).all()
    for image in (rgb[:, :, 0], rgb[:, :, :1], rgb[None, :, :, 0]):
        assert (to_pixels(image) == rgb[None, :, :, 0]).all()
    assert to_pixels(np.array([[-3.0, 0.5, 7.0, np.nan]])).tolist() == [[[0, 128, 255, 0]]]
    with pytest.raises(ValueError, match="shape"):
        to_pixels(np.zeros((2, 5, 7)))


def test_env_name():
    assert env_name("poet-1.5_诗") == "poet-1.5_诗"
    assert env_name("a/b\\'<c>") == "a_b___c_"
    assert env_name("..") == env_name("") == "main"
