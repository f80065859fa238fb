"""video_info.py and data/segments.py on real files whose facts are known, whose frames say their number."""

import struct

import av
import numpy as np
import pytest

from data.segments import read_segments, segment_indices
from infer.painting.video import paint_video
from infer.painting.video_info import VideoInfo, video_info
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


def numbers(frames) -> list[int]:
    """What the greys of the frames (S, 3, H, W) say."""
    return [round((float(frame.float().mean()) - 20) / 8) for frame in frames]


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
    frames = read_segments(path, 1)
    assert np.abs(frames[0].permute(1, 2, 0).numpy().astype(int) - seen[1]).max() <= 2
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


def test_the_middle_frames_of_equal_parts():
    assert segment_indices(90, 3).tolist() == [15, 45, 75]
    assert segment_indices(10, 5).tolist() == [1, 3, 5, 7, 9]
    assert segment_indices(2, 4).tolist() == [0, 0, 1, 1]
    assert segment_indices(1, 3).tolist() == [0, 0, 0]


def test_random_frames_are_of_their_own_part_and_each_of_it_is_drawn():
    random = np.random.default_rng(0)
    drawn = np.stack([segment_indices(12, 3, random) for _ in range(300)])  # (300, 3)
    for part in range(3):
        assert set(drawn[:, part]) == set(range(4 * part, 4 * part + 4))
    for frames, segments in random.integers(1, 40, (200, 2)):
        found = segment_indices(frames, segments, random)
        parts = np.arange(segments) * frames / segments
        assert (found >= np.floor(parts)).all() and (found < np.ceil(parts + frames / segments)).all()


def test_the_frames_that_are_read_are_those(tmp_path):
    path = make_video(tmp_path / "a.mkv", greys(20))
    assert read_segments(path, 4).shape == (4, 3, 48, 64)
    assert numbers(read_segments(path, 4)) == [2, 7, 12, 17]
    assert numbers(read_segments(path, 40))[::2] == list(range(20))  # each twice
    drawn = segment_indices(20, 5, np.random.default_rng(3)).tolist()
    assert numbers(read_segments(path, 5, np.random.default_rng(3))) == drawn


def test_the_last_frame_stands_in_for_those_that_are_missing(tmp_path):
    path = make_video(tmp_path / "a.mp4", greys(20), encoder="mjpeg", pix_fmt="yuvj420p", movflags="faststart")
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])
    found = numbers(read_segments(path, 20))
    last = found[-1]
    assert 5 <= last < 18 and found == [min(number, last) for number in range(20)]
