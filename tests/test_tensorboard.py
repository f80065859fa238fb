"""TensorBoard's event files: a curve of a record is a picture there."""

import io
import warnings

import numpy as np
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from utils.recorder import Recorder
from utils.tensorboard import TensorBoard


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


def test_a_chinese_name_is_no_box(tmp_path):
    """Boxes would be alike."""
    recorder = Recorder(tmp_path, [TensorBoard(tmp_path)])
    for step, name in enumerate("狗猫猫"):
        recorder.curve(step, 0, "roc", {name: ([0, 1], [0, 1])}, ("false", "true"))
    recorder.close()
    events = EventAccumulator(str(tmp_path), {"images": 0})
    events.Reload()
    dog, cat, again = (picture.encoded_image_string for picture in events.Images("roc"))
    assert dog != cat and cat == again
