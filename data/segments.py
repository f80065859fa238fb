"""A few frames that stand for a whole video: one from each of equal segments (temporal segment networks).

Wang et al. 2016, "Temporal Segment Networks: Towards Good Practices for Deep Action Recognition", section 3.1. It knows
no network.
"""

from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import torch
from torch import Tensor

from infer.painting.video_info import open_video, video_info


def segment_indices(frames: int, segments: int, random: np.random.Generator | None = None) -> np.ndarray:
    """(segments) numbers of frames, rising: one of each of so many equal parts of a video of `frames` frames.

    Args:
        random: draws a frame of each part, for training; None: the middle one. A short video gives frames twice.
    """
    place = random.random(segments) if random else np.full(segments, 0.5)  # in 0..1 of its part
    return ((np.arange(segments) + place) * frames / segments).astype(int).clip(0, frames - 1)


def read_segments(path: str | Path, segments: int, random: np.random.Generator | None = None) -> Tensor:
    """(segments, 3, H, W) uint8: those frames of a video, upright.

    Decodes up to the last of them, since only that is exact for every codec. Where a damaged video ends early, its last
    frame stands in for what is missing. Raises UserError if nothing can be read.
    """
    wanted = segment_indices(video_info(path).frames, segments, random).tolist()
    found: dict[int, Tensor] = {}
    with open_video(path) as (source, video):
        for number, frame in enumerate(_frames(source, video)):
            last = frame
            if number in wanted:
                found[number] = _pixels(frame)
            if number == wanted[-1]:
                break
        else:
            found |= {number: _pixels(last) for number in wanted if number not in found}
    return torch.stack([found[number] for number in wanted])


def _frames(source: av.container.InputContainer, video: av.VideoStream) -> Iterator[av.VideoFrame]:
    """The frames, as far as they can be read."""
    try:
        yield from source.decode(video)
    except av.FFmpegError:
        return


def _pixels(frame: av.VideoFrame) -> Tensor:
    """(3, H, W) uint8, turned as the file says."""
    rgb = np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90)  # (H, W, 3)
    return torch.from_numpy(np.ascontiguousarray(rgb)).permute(2, 0, 1).contiguous()
