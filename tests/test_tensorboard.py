"""TensorBoard's event files: a curve of a record is a picture there."""

import io
import warnings

import numpy as np
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from board.tensorboard import TensorBoard
from training.recorder import Recorder


def test_a_curve_is_drawn_where_its_points_are(tmp_path):
    """The line from the middle of the upper side to the lower right corner; a strange name does no harm."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        recorder = Recorder(tmp_path, [TensorBoard(tmp_path)])
        for step in (3, 6):
            recorder.curve(step, 0, "roc", {r"_$\frac$ 🐕": ([0.5, 1.0], [1.0, 0.0])}, ("false", "true"))
        recorder.close()
    events = EventAccumulator(str(tmp_path), {"images": 0})
    events.Reload()
    pictures = events.Images("roc")
    assert [picture.step for picture in pictures] == [3, 6]
    image = np.asarray(Image.open(io.BytesIO(pictures[-1].encoded_image_string)).convert("RGB")).astype(int)
    blue = image[:, :, 2] - image[:, :, 0] > 100  # (H, W): the line
    middles = {y: np.flatnonzero(row).mean() for y, row in enumerate(blue[:, image.shape[1] // 2 :]) if row.any()}
    ys, xs = np.array(list(middles)), np.array(list(middles.values()))
    assert np.ptp(ys) > 0.7 * len(image) and np.corrcoef(ys, xs)[0, 1] > 0.98


def test_a_record_of_every_kind_needs_no_folder(tmp_path):
    """The gradients of 100 layers are curves in the run's own event files."""
    recorder = Recorder(tmp_path, [TensorBoard(tmp_path)])
    recorder.config({"lr": 1e-3, "task": "dogcat"})
    recorder.batch(1, 0, loss=0.5)
    recorder.gradients(1, 0, {f"features.{i}.weight": (-1.0, 0.25, i) for i in range(100)})
    recorder.gradients(101, 0, {"features.0.weight": (-2.0, 0.5, float("inf"))})
    recorder.final(101, 1, {"loss": 0.4})
    recorder.close()
    files = list(tmp_path.iterdir())
    assert all(path.is_file() for path in files) and len(files) <= 3  # the log, the events, those of the settings
    events = EventAccumulator(str(tmp_path), {"scalars": 0})
    events.Reload()
    curve = [
        [(e.step, e.value) for e in events.Scalars(f"gradient {name}/features.0.weight")] for name in ("min", "max")
    ]
    assert curve == [[(1, -1), (101, -2)], [(1, 0), (101, float("inf"))]]
    assert [e.value for e in events.Scalars("gradient max/features.99.weight")] == [99]
