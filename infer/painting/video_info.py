"""What is in a video file: size, frames, rate, length, codec, sound. Nothing is decoded but one frame.

Painting videos is infer/painting/video.py's business.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import av

from utils.errors import UserError


@dataclass(frozen=True)
class VideoInfo:
    """Of the first picture stream: width and height in pixels, as shown; frames a second on average; length in s."""

    width: int
    height: int
    frames: int
    fps: float
    seconds: float
    codec: str  # FFmpeg's name, such as h264
    sound: bool


@contextmanager
def open_video(path: str | Path) -> Iterator[tuple[av.container.InputContainer, av.VideoStream]]:
    """(an open video, its picture stream). Raises UserError if there is no such file, or it is none or is broken."""
    bad = f"{path} is neither a picture nor a video that can be read, or is broken"
    try:
        file = open(path, "rb")
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    with file:
        try:
            # A playlist could name other files, or addresses: no protocol is allowed but the file that is open already.
            source = av.open(file, options={"protocol_whitelist": "none"})
        except (av.FFmpegError, OSError, ValueError) as error:
            raise UserError(bad) from error
        with source:
            video = source.streams.best("video")
            if video is None or not video.codec_context or video.disposition & av.stream.Disposition.attached_pic:
                raise UserError(f"{path} has no video in it that can be read (a picture of an album does not count)")
            try:
                yield source, video
            except av.FFmpegError as error:
                raise UserError(f"{bad}: {error.strerror}") from error


def video_info(path: str | Path) -> VideoInfo:
    """The facts about a video file; frames are counted one by one where the file does not say how many there are.

    Raises UserError if it cannot be read.
    """
    with open_video(path) as (source, video):
        first = next(source.decode(video), None)
        if first is None:
            raise UserError(f"{path}: not one frame of the video could be read")
        turned = first.rotation % 180 != 0
        width, height = (first.height, first.width) if turned else (first.width, first.height)
        fps = float(video.average_rate or video.guessed_rate or 25)
        frames = video.frames or _packets(path)
        length = video.duration * video.time_base if video.duration else (source.duration or 0) / av.time_base
        sound = bool(source.streams.audio)
        return VideoInfo(width, height, frames, fps, float(length) or frames / fps, video.codec.name, sound)


def _packets(path: str | Path) -> int:
    """Frames in the file: each is a packet."""
    with open_video(path) as (source, video):
        return sum(packet.size > 0 for packet in source.demux(video))
