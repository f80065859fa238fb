"""data/views.py: what a classifier sees of a picture, against torchvision's transforms."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode, RandomResizedCrop, v2

from data.dogcat import DogCatDataset
from data.labels import list_samples
from data.views import MIN_AREA, Augmentation, centre_view, jitter_colours, random_box, read_reduced, shuffle_regions
from tests.pictures import png, ramp, smooth
from utils.errors import UserError

CLASSES = ["cat", "dog"]


@pytest.mark.parametrize("size", [32, 64, 128, 224])
@pytest.mark.parametrize("width, height", [(500, 375), (190, 144), (144, 191), (40, 30), (7, 20), (1, 3), (300, 301)])
def test_the_middle_is_torchvisions(width, height, size):
    rgb = smooth(width, height)
    reference = v2.Compose([v2.Resize(round(size * 256 / 224), InterpolationMode.BICUBIC), v2.CenterCrop(size)])
    expected = torch.from_numpy(np.array(reference(Image.fromarray(rgb)))).permute(2, 0, 1)  # Pillow's arithmetic
    difference = (centre_view(rgb, size).int() - expected.int()).abs().float()
    assert difference.max() <= 2 and difference.mean() < 0.1


@pytest.mark.parametrize("size", [(500, 375), (375, 500), (1600, 1201), (3000, 500)])
def test_large_pictures_are_reduced_to_what_the_smallest_crop_needs(tmp_path, size):
    rgb = smooth(*size)
    Image.fromarray(rgb).save(tmp_path / "cat.1.jpg", quality=97)
    (sample,) = list_samples(tmp_path)
    reduced = read_reduced(sample.source, 64)
    assert min(reduced.shape[:2]) == 109 == np.ceil(64 / MIN_AREA**0.5)
    assert max(reduced.shape[:2]) == pytest.approx(109 * max(size) / min(size), abs=1)
    assert read_reduced(sample.source, 800).shape == rgb.shape  # nothing is enlarged
    whole = centre_view(rgb, 64).int()
    difference = (DogCatDataset([sample], CLASSES, 64)[0]["image"].int() - whole).abs().float()
    assert difference.max() <= 10 and difference.mean() < 1.5  # JPEG, its draft mode, two resizings instead of one
    assert np.array_equal(DogCatDataset([sample], CLASSES, 64).picture(0), centre_view(reduced, 64).permute(1, 2, 0))


def test_random_boxes_are_drawn_as_torchvision_draws_them():
    """Two samples of 2000: means and deviations of area, ratio and place; all within the picture and the bounds."""
    random, image = np.random.default_rng(0), torch.zeros(3, 144, 190)
    torch.manual_seed(0)
    mine = np.array([random_box(190, 144, random) for _ in range(2000)])
    draw = RandomResizedCrop.get_params
    its = np.array([draw(image, [MIN_AREA, 1], [3 / 4, 4 / 3]) for _ in range(2000)])  # top, left, height, width
    x, y, w, h = mine[:, 0], mine[:, 1], mine[:, 2] - mine[:, 0], mine[:, 3] - mine[:, 1]
    assert x.min() == 0 == y.min() and mine[:, 2].max() == 190 and mine[:, 3].max() == 144
    area = w * h / (190 * 144)
    assert MIN_AREA * 0.98 < area.min() < MIN_AREA * 1.05 and area.max() > 0.95
    assert 0.74 < (w / h).min() and (w / h).max() < 1.35
    top, left, height, width = its.T
    for a, b in ((w * h, width * height), (np.log(w / h), np.log(width / height)), (x, left), (y, top)):
        error = 4 * np.sqrt((a.var() + b.var()) / 2000)  # four standard errors
        assert a.mean() == pytest.approx(b.mean(), abs=error) and a.std() == pytest.approx(b.std(), rel=0.1)


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1), (1000, 100), (100, 1000)])
def test_where_no_random_box_fits_it_is_the_middle(size):
    width, height = size
    for seed in range(5):
        x0, y0, x1, y1 = random_box(width, height, np.random.default_rng(seed), 1)
        assert 0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height
        assert abs((x0 + x1) - width) <= 1 and abs((y0 + y1) - height) <= 1
        assert (x1 - x0, y1 - y0) == (min(width, round(height * 4 / 3)), min(height, round(width * 4 / 3)))


def test_views_show_boxes_of_the_picture_in_both_directions(tmp_path):
    (tmp_path / "cat.1.png").write_bytes(png(ramp(190, 144)))
    pictures = DogCatDataset(list_samples(tmp_path), CLASSES, 48, Augmentation(seed=1, jitter=0))
    mirrored, widths = 0, []
    for epoch in range(100):
        pictures.set_epoch(epoch)
        image = pictures[0]["image"].float()  # (3, 48, 48)
        columns, rows = image[0].mean(0), image[1].mean(1)
        assert (rows.diff() >= 0).all() and image[2].max() == 0
        mirrored += bool(columns[0] > columns[-1])
        widths.append(float((columns[-1] - columns[0]).abs() / 255))
    assert 30 < mirrored < 70
    assert 0.4 < min(widths) < 0.6 and 0.85 < max(widths) <= 1


def test_without_strength_colours_stay_and_the_factors_are_those_of_torchvision():
    image = torch.from_numpy(smooth(40, 30)).permute(2, 0, 1) // 3 + 70  # (3, 30, 40), nothing is cut off
    assert torch.equal(jitter_colours(image, 0, np.random.default_rng(0)), image)
    for seed in range(10):
        brightness, contrast, saturation = np.random.default_rng(seed).uniform(0.8, 1.2, 3)
        expected = v2.functional.adjust_brightness(image / 255, brightness)
        expected = v2.functional.adjust_contrast(expected, contrast)
        expected = v2.functional.adjust_saturation(expected, saturation)
        changed = jitter_colours(image, 0.2, np.random.default_rng(seed))
        assert (changed - expected * 255).abs().max() <= 1


@pytest.mark.parametrize("blocks, size, reach", [(2, 8, 1), (7, 30, 2), (7, 224, 2), (5, 64, 1), (3, 3, 2), (8, 33, 5)])
def test_every_region_appears_once_and_stays_near(blocks, size, reach):
    side = size // blocks
    start = (size % blocks) // 2
    inner = slice(start, start + blocks * side)
    row, column = np.mgrid[:blocks, :blocks]

    def regions(image: np.ndarray) -> np.ndarray:
        """(size, size) -> (blocks, blocks, side, side), without the border."""
        return image[inner, inner].reshape(blocks, side, blocks, side).swapaxes(1, 2)

    furthest = 0
    for seed in range(30):
        image = np.random.default_rng(seed).integers(0, 9, (2, size, size))
        image[0] = -1
        regions(image[0])[:] = (row * blocks + column)[..., None, None]
        shuffled = shuffle_regions(image, blocks, np.random.default_rng(seed), reach)
        assert np.array_equal(shuffled[0] == -1, image[0] == -1)  # the border stays
        seen = regions(shuffled[0])
        numbers = seen[..., 0, 0]
        assert (seen == numbers[..., None, None]).all() and sorted(numbers.flat) == list(range(blocks**2))
        from_row, from_column = np.divmod(numbers, blocks)
        assert np.array_equal(regions(shuffled[1]), regions(image[1])[from_row, from_column])  # whole, not turned
        furthest = max(furthest, np.abs(from_row - row).max(), np.abs(from_column - column).max())
    assert min(reach, blocks - 1) <= furthest < 2 * reach


def test_half_of_the_views_are_shuffled(tmp_path):
    (tmp_path / "cat.1.png").write_bytes(png(ramp(100, 100)))
    samples = list_samples(tmp_path)
    pictures = DogCatDataset(samples, CLASSES, 56, Augmentation(seed=0, jitter=0, shuffle_blocks=7))
    plain = DogCatDataset(samples, CLASSES, 56, Augmentation(seed=0, jitter=0))
    different = 0
    for epoch in range(60):
        pictures.set_epoch(epoch)
        plain.set_epoch(epoch)
        mine, its = pictures[0]["image"], plain[0]["image"]
        assert torch.equal(mine.flatten(1).sort().values, its.flatten(1).sort().values)
        different += not torch.equal(mine, its)
    assert 15 < different < 45
    with pytest.raises(UserError, match="shuffle_blocks=57"):
        DogCatDataset(samples, CLASSES, 56, Augmentation(shuffle_blocks=57))
