"""infer/painting/video_reader.py on real files whose facts are known."""

import struct

import av
import numpy as np
import pytest

from infer.painting.video import paint_video
from infer.painting.video_reader import VideoInfo, video_info
from tests.test_video import RATE, greys, make_video, patches
from utils.errors import UserError

TURNS = {"90": (0, 1, -1, 0), "180": (-1, 0, 0, -1), "270": (0, -1, 1, 0)}  # a, b, c, d of the display matrix


def turned(path, matrix):
    """Writes a display matrix into an .mp4 (ISO 14496-12, tkhd of version 0)."""
    data = bytearray(path.read_bytes())
    place = data.index(b"tkhd") + 4 + 40
    a, b, c, d = (value << 16 for value in matrix)
    data[place : place + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("name, codec", [("a.mp4", "h264"), ("a.mkv", "h264"), ("a.avi", "h264")])
def test_the_facts_are_those_that_were_written(tmp_path, name, codec):
    sound = "" if name == "a.avi" else "aac"
    info = video_info(make_video(tmp_path / name, greys(15), sound=sound))
    assert info.seconds == pytest.approx(15 / RATE, abs=0.05)
    assert info == VideoInfo(64, 48, 15, RATE, info.seconds, codec, bool(sound))


@pytest.mark.parametrize("matrix", TURNS.values(), ids=TURNS)
def test_a_turned_video_is_upright_as_when_it_is_painted(tmp_path, matrix):
    path = turned(make_video(tmp_path / "a.mp4", [patches()] * 3), matrix)
    seen = []
    paint_video(path, tmp_path / "b.mp4", lambda rgb: seen.append(rgb[0].copy()) or rgb)
    info = video_info(path)
    assert (info.height, info.width) == seen[0].shape[:2]


def test_what_is_no_video_is_named(tmp_path):
    (tmp_path / "a.mp4").write_text("not a video")
    with pytest.raises(UserError, match="a.mp4 is neither a picture nor a video"):
        video_info(tmp_path / "a.mp4")
    with pytest.raises(UserError, match="cannot read .*b.mp4: No such file"):
        video_info(tmp_path / "b.mp4")
    with av.open(str(tmp_path / "c.wav"), "w") as file:
        audio = file.add_stream("pcm_s16le", rate=8000, layout="mono")
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        silence.rate = 8000
        file.mux(audio.encode(silence))
    with pytest.raises(UserError, match="c.wav has no video"):
        video_info(tmp_path / "c.wav")
