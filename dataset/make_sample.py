"""Draws the pictures in dataset/sample: photographs that nobody took, paintings that nobody painted.

`python dataset/make_sample.py [FOLDER]` writes FOLDER/photos and FOLDER/styles, always the same ones. They are there so
that a training of the painter can show its work without any download; nothing else in the project needs this file.

Landscapes are a fractal height map seen in perspective, still lifes and villages are distance fields met by rays of
light. Colours are linear light until the end. Shapes: H x W pixels, drawn at twice the size they are saved in.
"""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy import ndarray as Array
from numpy.random import Generator
from PIL import Image

SHORT, LONG = 288, 384  # sides of a photograph in pixels
OVERSAMPLING = 2
SUN = np.array([-0.62, 0.45, -0.35])  # x to the right, y up, z away from the camera; behind the camera's left shoulder


# ------------------------------------------------------------------------------------------------------------- tools


def fractal(rng: Generator, size: int, slope: float, dimensions: int = 2) -> Array:
    """Periodic noise of `size` points a side whose amplitudes fall with frequency ** -slope; mean 0, deviation 1."""
    frequency = np.sqrt(sum(np.square(f) for f in np.meshgrid(*[np.fft.fftfreq(size) * size] * dimensions)))
    frequency[(0,) * dimensions] = np.inf
    noise = np.fft.ifftn(np.fft.fftn(rng.normal(size=(size,) * dimensions)) * frequency**-slope).real
    return ((noise - noise.mean()) / noise.std()).astype(np.float32)


def sample(noise: Array, *at: Array) -> Array:
    """The periodic noise at positions in units of its period, by linear interpolation."""
    size, result = len(noise), 0.0
    whole = [np.floor(a * size).astype(int) for a in at]
    part = [a * size - w for a, w in zip(at, whole, strict=True)]
    for corner in np.ndindex(*(2,) * noise.ndim):
        weight = np.prod([p if c else 1 - p for c, p in zip(corner, part, strict=True)], axis=0)
        result = result + weight * noise[tuple((w + c) % size for c, w in zip(corner, whole, strict=True))]
    return result


def colour(code: str) -> Array:
    """#rrggbb (sRGB) to linear light, (3)."""
    return (np.array([int(code[i : i + 2], 16) for i in (1, 3, 5)]) / 255) ** 2.2


def mix(a: Array, b: Array, share: Array) -> Array:
    """a where share (…) is 0, b where it is 1, for colours (…, 3)."""
    return a + (b - a) * np.clip(share, 0, 1)[..., None]


def smooth(low: float, high: float, x: Array) -> Array:
    """0 below `low`, 1 above `high`, a smooth step between them."""
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def dot(a: Array, b: Array) -> Array:
    return np.einsum("...i,...i->...", a, b)


def unit(v: Array) -> Array:
    return v / np.linalg.norm(v, axis=-1, keepdims=True)


def photograph(rng: Generator, light: Array) -> Image.Image:
    """What a camera makes of linear light (H, W, 3): darker corners, bright colours rolled off, grain."""
    height, width, _ = light.shape
    y, x = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    light = light * (1 - 0.12 * (x * x + y * y))[..., None]
    light = np.where(light > 0.6, 0.6 + 0.4 * np.tanh((light - 0.6) / 0.4), light)
    pixels = np.clip(light, 0, 1) ** (1 / 2.2)
    image = Image.fromarray((pixels * 255 + 0.5).astype(np.uint8))
    image = image.resize((width // OVERSAMPLING, height // OVERSAMPLING), Image.Resampling.LANCZOS)
    grain = rng.normal(0, 1.5, size=(image.height, image.width, 1))
    return Image.fromarray(np.clip(np.asarray(image) + grain, 0, 255).astype(np.uint8))


# -------------------------------------------------------------------------------------------------------- landscapes

WEATHERS = {  # zenith, horizon, sunlight, light of the sky in the shadows, share of clouds
    "noon": ("#3f78c4", "#c3d8ea", "#fff6e6", "#8fb0d8", 0.45),
    "dawn": ("#6a86b8", "#f6cfae", "#ffd9a8", "#9a9cc4", 0.5),
    "dusk": ("#2c3a6e", "#f2905a", "#ff9f5e", "#6a6596", 0.55),
    "grey": ("#8d99a6", "#d3d8da", "#e9e9e4", "#aeb6be", 0.8),
    "clear": ("#2f6cc0", "#b4d3ee", "#fff9ee", "#86aede", 0.15),
}
GROUNDS = {  # shore, low land, forest, rock, snow, height above the camera from which it lies, trees
    "alpine": ("#9c8f74", "#6d8a3c", "#2f4a26", "#77706a", "#f2f5fa", 1.5, 500),
    "autumn": ("#a08a62", "#b08a34", "#8f4a1e", "#6f6259", "#f2f5fa", 4.0, 450),
    "desert": ("#d9b483", "#d3a263", "#b97f48", "#9c5a36", "#e8c79a", 99.0, 0),
    "winter": ("#b9bfc6", "#e6ebf0", "#3d4f4a", "#6d7076", "#fafcff", -1.0, 350),
    "spring": ("#b5a47e", "#93b04a", "#46702c", "#857d72", "#f2f5fa", 3.0, 300),
}


def sky(rng: Generator, weather: str, x: Array, up: Array) -> Array:
    """The sky in directions x to the right and `up`, each (H, W), in units of the focal length -> (H, W, 3)."""
    zenith, horizon, sunlight, _, cover = WEATHERS[weather]
    rise = np.clip(up, 0, None)
    light = mix(colour(horizon), colour(zenith), 1 - np.exp(-rise * 3.2))
    glow = np.exp(-8 * ((x - 0.35) ** 2 + (up - 0.1) ** 2))
    light = light + glow[..., None] * colour(sunlight) * (0.55 if weather in ("dawn", "dusk") else 0.12)
    noise = fractal(rng, 512, 1.45)
    u, v = x / (rise + 0.08), 1 / (rise + 0.08)  # a flat layer of clouds in perspective
    density = sample(noise, 0.13 * u, 0.2 * v) + 0.25 * sample(noise, 0.7 * u, 1.1 * v)
    lit = density - sample(noise, 0.13 * u - 0.02, 0.2 * v + 0.03)  # thinner towards the sun
    density = density + 2.2 * cover - 1.2
    shade = mix(colour(sunlight) * 1.05, mix(colour(zenith), colour(horizon), np.full(x.shape, 0.6)) * 0.75, 0.5 + lit)
    return mix(light, shade, smooth(0, 1.1, density) * smooth(0.0, 0.12, rise) * 0.9)


def landscape(
    rng: Generator, weather: str, ground: str, relief: float = 1.0, lake: float = 0.0, eye: float = 0.5,
    upright: bool = False,
) -> Array:  # fmt: skip
    """(H, W, 3) light of mountains `relief` high, seen from `eye` above the ground; `lake`: the share under water."""
    height, width = (side * OVERSAMPLING for side in ((LONG, SHORT) if upright else (SHORT, LONG)))
    terrain = fractal(rng, 512, 2.1)
    cx, cz = rng.uniform(size=2)
    steps = np.geomspace(0.35, 90, 1400)[:, None]  # (Z, 1) distances
    column = ((np.arange(width) + 0.5) / width - 0.5) * 1.15 * width / max(height, width)  # (W)
    horizon = 0.56 * height
    focal = max(height, width) / 1.15

    def surface(x: Array, z: Array) -> Array:
        """The height of the ground: three copies of one noise at growing frequency, and a plain before the camera."""
        rough = sample(terrain, cx + x / 55, cz + z / 55)
        crests = 1 - 1.7 * np.abs(sample(terrain, cz + x / 33, cx + z / 33))
        rough = 0.5 * rough + 0.8 * crests * smooth(2, 25, z)
        rough = rough + 0.14 * sample(terrain, x / 9, z / 9) + 0.03 * sample(terrain, x / 1.7, z / 1.7)
        return relief * rough * (0.2 + 0.8 * smooth(3, 35, z)) * (1 + 0.05 * z)

    at_x, at_z = steps * column, np.broadcast_to(steps, (len(steps), width))  # (Z, W)
    land = surface(at_x, at_z)
    water = float(np.quantile(land[(steps[:, 0] > 1) & (steps[:, 0] < 15)], lake)) if lake else -np.inf
    camera = max(float(land[:300].max()), water) + eye
    seen = np.maximum.accumulate(horizon + focal * (np.maximum(land, water) - camera) / steps, axis=0)  # (Z, W) rows up
    rows = height - np.arange(height) - 0.5
    first = np.stack([np.searchsorted(seen[:, i], rows) for i in range(width)], axis=1)  # (H, W) index of the distance
    hit = first < len(steps)
    first = np.minimum(first, len(steps) - 1)
    z = steps[first, 0]
    x = z * column

    light = sky(rng, weather, np.broadcast_to(column, z.shape), ((rows - horizon) / focal)[:, None] + 0 * z)
    _, horizon_code, sunlight, shadow, _ = WEATHERS[weather]
    here, near = surface(x, z), 0.004 * z
    normal = unit(np.stack([here - surface(x + near, z), near, here - surface(x, z + near)], axis=-1))
    sun = unit(SUN * (1, 0.6, 1) if weather in ("dawn", "dusk") else SUN)
    blocked = max_over(lambda t: surface(x + sun[0] * t, z + sun[2] * t) - here - sun[1] * t, np.geomspace(0.05, 6, 9))
    bright = np.clip(dot(normal, sun), 0, 1) * (1 - smooth(0, 0.12, blocked))

    shore, low, forest, rock, snow, snow_line, trees = GROUNDS[ground]
    patch = sample(terrain, x / 5 + 0.3, z / 5)
    speck = sample(terrain, x * 1.3, z * 1.3) + 0.7 * rng.normal(size=z.shape) / (1 + 0.1 * z)
    base = mix(colour(low), colour(forest), smooth(-0.4, 0.5, patch + 0.3 * speck))
    base = mix(base, colour(shore), 1 - smooth(0.02, 0.25, here - water + 0.05 * patch))
    base = mix(base, colour(rock), smooth(0.25, 0.5, 1 - normal[..., 1] + 0.04 * speck))
    snowy = smooth(-0.4, 0.4, here - camera - snow_line + 0.6 * patch) * smooth(0.35, 0.7, normal[..., 1])
    base = mix(base, colour(snow), snowy)
    base = base * (1 + 0.16 * np.clip(speck, -2, 2))[..., None]
    lit = base * (colour(sunlight) * 1.25 * bright[..., None] + colour(shadow) * (0.35 + 0.3 * normal[..., 1:2]))
    far = 1 - np.exp(-z / (16 if weather == "grey" else 42))
    air = colour(horizon_code) * 0.92
    scene = np.where(hit[..., None], mix(lit, air, far), light)
    wooded = np.flatnonzero(hit & (here > water + 0.03) & (z > 2) & (normal[..., 1] > 0.7) & (patch > 0))
    spots = rng.choice(wooded, size=min(trees, len(wooded)), replace=False)
    for spot in spots[np.argsort(-z.flat[spots])]:  # the nearest last
        leaf = mix(colour(forest), colour(low), rng.uniform(0, 0.4, size=1))[0] * (0.5 + 0.5 * bright.flat[spot])
        leaf = leaf * (colour(sunlight) + 0.4 * colour(shadow))
        size = focal * rng.uniform(0.12, 0.34) / z.flat[spot]
        tree(rng, scene, *divmod(spot, width), size, mix(leaf, air, far.flat[spot]), ground in ("alpine", "winter"))

    wet = hit & (here <= water)
    if wet.any():  # the mirrored scene, shaken by ripples that get finer with distance
        ripple = sample(terrain, x * 0.5, z * 2.5) + 0.5 * sample(terrain, x * 2, z * 9)
        source = 2 * (height - horizon) - np.arange(height)[:, None] + 14 * ripple / (1 + 0.15 * z)
        source = np.minimum(np.abs(source), height - 1).astype(int)  # above the picture: more of its sky
        mirrored = scene[source, np.arange(width)[None]]
        depth = mix(colour("#1c4a55"), colour("#2f6f74"), 0.5 + 0.3 * patch)
        grazing = 0.35 + 0.55 * smooth(0.5, 14, z)
        scene[wet] = mix(depth, mirrored * 0.94, grazing)[wet]
    return scene


def tree(rng: Generator, scene: Array, row: int, column: int, size: float, leaf: Array, fir: bool) -> None:
    """Draws a tree of `size` pixels into the scene (H, W, 3), standing on that pixel; lit from the left."""
    part = np.s_[max(0, int(row - size)) : row + 1, max(0, int(column - size / 2)) : int(column + size / 2) + 2]
    view = scene[part]
    y, x = np.mgrid[: view.shape[0], : view.shape[1]] + np.array([part[0].start, part[1].start])[:, None, None]
    y, x = (row - y) / size, (x - column) / size  # 0 at the foot, 1 at the top
    ragged = rng.normal(0, 0.05, size=y.shape)
    if fir:
        crown = np.abs(x) + ragged < 0.24 * (1 - y) * (0.65 + 0.5 * ((-7 * y) % 1)) * (y > 0.1)
    else:
        crown = np.hypot(x / 0.42, (y - 0.6) / 0.4) + 2 * ragged + 0.1 * np.sin(9 * x + row) * np.cos(8 * y) < 1
    view[(np.abs(x) < 0.03) & (y < 0.4)] = leaf * 0.35
    shade = np.clip(0.75 - 2.0 * x + 0.5 * (y - 0.5) + 4 * ragged, 0.25, 1.5)
    view[crown] = (leaf * shade[..., None])[crown]


def max_over(function: Callable[[float], Array], values: Array) -> Array:
    result = function(values[0])
    for value in values[1:]:
        result = np.maximum(result, function(value))
    return result


# ------------------------------------------------------------------------------------------------ things seen closely

Shape = Callable[[Array], Array]  # points (N, 3) -> distance to its surface, negative inside (or a little less)
Paint = Callable[[Array], Array]  # points (N, 3) -> colours (N, 3)


def turned(profile: Callable[[Array], Array], low: float, high: float, at: tuple[float, float, float]) -> Shape:
    """A body of revolution about a vertical axis: its radius at the heights `low` to `high` above its place."""

    def distance(p: Array) -> Array:
        q = p - at
        outside = np.maximum(low - q[:, 1], q[:, 1] - high)
        radius = profile(np.clip(q[:, 1], low, high))
        return np.maximum(0.7 * (np.hypot(q[:, 0], q[:, 2]) - radius), outside)

    return distance


def ball(radius: float, at: tuple[float, float, float]) -> Shape:
    return lambda p: np.linalg.norm(p - at, axis=1) - radius


def box(size: tuple[float, float, float], at: tuple[float, float, float], angle: float = 0) -> Shape:
    """A box of the given half sides, turned about the vertical."""

    def distance(p: Array) -> Array:
        q = np.abs(rotated(p - at, angle)) - size
        return np.linalg.norm(np.maximum(q, 0), axis=1) + np.minimum(q.max(axis=1), 0)

    return distance


def rotated(p: Array, angle: float) -> Array:
    c, s = np.cos(angle), np.sin(angle)
    return np.stack([c * p[:, 0] + s * p[:, 2], p[:, 1], c * p[:, 2] - s * p[:, 0]], axis=1)


def gable(size: tuple[float, float, float], at: tuple[float, float, float], angle: float) -> Shape:
    """A roof: half length, height, half width."""

    def distance(p: Array) -> Array:
        q = rotated(p - at, angle)
        slope = np.hypot(size[1], size[2])
        sides = ((np.abs(q[:, 2]) - size[2]) * size[1] + q[:, 1] * size[2]) / slope
        return np.maximum.reduce([sides, -q[:, 1], np.abs(q[:, 0]) - size[0]])

    return distance


def foliage(noise: Array, radius: float, at: tuple[float, float, float], squeeze: float = 1.0) -> Shape:
    """A leafy crown: a ball displaced by noise (N, N, N)."""

    def distance(p: Array) -> Array:
        q = (p - at) / (1, squeeze, 1)
        away = np.linalg.norm(q, axis=1) - radius
        close = away < 0.6 * radius  # elsewhere the ball is near enough
        away[close] -= 0.22 * radius * sample(noise, *(p[close].T * 0.22 / radius)) - 0.1 * radius
        return 0.55 * away

    return distance


def render(
    things: list[tuple[Shape, Paint, float]], backdrop: Array, camera: Array, target: Array, zoom: float,
    sunlight: Array, shadow: Array, haze: float = 0.0,
) -> Array:  # fmt: skip
    """(H, W, 3) light of things (shape, paint, gloss) before a backdrop (H, W, 3), by sphere tracing (Hart 1996)."""
    height, width, _ = backdrop.shape
    forward = unit(target - camera)
    right = unit(np.cross((0, 1, 0), forward))
    up = np.cross(forward, right)
    y, x = np.mgrid[:height, :width].reshape(2, -1)
    x, y = (x - width / 2) / max(height, width), (height / 2 - y) / max(height, width)
    rays = unit(forward * zoom + x[:, None] * right + y[:, None] * up)  # (H * W, 3)

    def nearest(p: Array) -> Array:
        return np.minimum.reduce([shape(p) for shape, _, _ in things])

    depth, going = np.zeros(len(rays)), np.arange(len(rays))
    for _ in range(90):
        step = nearest(camera + depth[going, None] * rays[going])
        depth[going] += step
        going = going[(step > 0.0008 * depth[going]) & (depth[going] < 60)]
    hit = np.flatnonzero(depth < 60)
    p, ray = camera + depth[hit, None] * rays[hit], rays[hit]
    small = 0.0015 * depth[hit, None]
    normal = unit(
        np.stack([nearest(p + small * axis) - nearest(p - small * axis) for axis in np.eye(3)], axis=1) + 1e-9
    )
    sun = unit(SUN + (0, 0.35, 0))
    open_sky, sunny, away = np.ones(len(hit)), np.ones(len(hit)), 0.02
    for reach in (0.04, 0.12, 0.3):  # how much of the sky is hidden by what is near (ambient occlusion)
        open_sky -= 0.28 * np.clip(reach - nearest(p + reach * normal), 0, reach) / reach
    for _ in range(26):  # the penumbra: how closely a ray to the sun passes something
        gap = nearest(p + (2 * small + away) * sun + small * normal)
        sunny = np.minimum(sunny, np.clip(9 * gap / away, 0, 1))
        away += np.clip(gap.min(), 0.03, 0.25)
    owner = np.argmin([shape(p) for shape, _, _ in things], axis=0)
    base, gloss = np.zeros_like(p), np.zeros(len(p))
    for number, (_, paint, shine) in enumerate(things):
        mine = owner == number
        base[mine], gloss[mine] = paint(p[mine]), shine
    bright = np.clip(dot(normal, sun), 0, 1) * sunny
    sky_light = (0.45 + 0.35 * normal[:, 1]) * open_sky
    light = base * (1.25 * bright[:, None] * sunlight + sky_light[:, None] * shadow)
    mirror = np.clip(dot(ray - 2 * dot(ray, normal)[:, None] * normal, sun), 0, 1)
    light += (gloss * sunny * mirror**40)[:, None] * sunlight
    if haze:
        light = mix(light, backdrop[height // 2].mean(axis=0), 1 - np.exp(-depth[hit] * haze))
    result = backdrop.reshape(-1, 3).copy()
    result[hit] = light
    return result.reshape(height, width, 3)


def plain(code: str, noise: Array | None = None, scale: float = 1.0, spread: float = 0.15, other: str = "") -> Paint:
    """One colour, or speckled between two by noise (N, N, N)."""
    one, two = colour(code), colour(other or code)

    def paint(p: Array) -> Array:
        if noise is None:
            return np.broadcast_to(one, p.shape)
        value = sample(noise, *(p.T * scale))
        return mix(one, two, 0.5 + 0.5 * value) * (1 + spread * np.clip(value, -2, 2))[:, None]

    return paint


def wood(noise: Array, light: str, dark: str) -> Paint:
    def paint(p: Array) -> Array:
        board = np.floor(p[:, 2] * 1.1)
        grain = sample(noise, p[:, 0] * 0.12 + 0.37 * board, p[:, 2] * 1.6, 0.31 * board)
        fine = sample(noise, p[:, 0] * 0.7, p[:, 2] * 9, 0.31 * board)
        gap = np.abs(p[:, 2] * 1.1 - board - 0.5) > 0.485
        return mix(colour(light), colour(dark), 0.45 + 0.3 * grain + 0.15 * fine + 0.8 * gap)

    return paint


def still_life(rng: Generator, number: int) -> Array:
    """Fruit and pots on a table before a wall."""
    noise = fractal(rng, 64, 2.2, 3)
    height, width = SHORT * OVERSAMPLING, LONG * OVERSAMPLING
    walls = [("#8b9a8e", "#64756c"), ("#c9b79c", "#a58f73"), ("#5b6a80", "#3d4a60"), ("#a5665a", "#7d4a44")]
    wall = plain(walls[number % 4][0], noise, 0.22, 0.05, walls[number % 4][1])
    table = wood(noise, *(("#b9854f", "#6d4425"), ("#8a6a50", "#4a3324"), ("#d2b48a", "#96744c"))[number % 3])
    things = [
        (lambda p: p[:, 1], table, 0.08),
        (lambda p: 4.2 - p[:, 2] + 0 * p[:, 1], wall, 0.0),
    ]
    if number % 2:  # a striped jug
        jug = turned(
            lambda y: 0.42 + 0.26 * np.sin(2.1 * y + 0.4) - 0.12 * smooth(1.2, 1.6, y), 0, 1.75, (-1.3, 0, 1.5)
        )

        def glaze(p: Array) -> Array:
            stripe = smooth(-0.2, 0.2, np.sin(9 * p[:, 1] + 0.5 * sample(noise, *(p.T * 0.3))))
            return mix(colour("#e8e2d2"), colour("#2d5587"), stripe * (p[:, 1] > 0.3) * (p[:, 1] < 1.3))

        things.append((jug, glaze, 0.5))
    else:  # a bowl and a book
        outer = turned(lambda y: 0.35 + 0.75 * np.sqrt(np.clip(y, 0, 1)), 0, 0.62, (1.2, 0, 1.7))
        inner = turned(lambda y: 0.27 + 0.75 * np.sqrt(np.clip(y, 0, 1)), 0.08, 0.7, (1.2, 0, 1.7))
        bowl = plain("#3f7f86", noise, 0.6, 0.1, "#2b5d68")
        things.append((lambda p: np.maximum(outer(p), -inner(p)), bowl, 0.5))
        things.append((box((0.8, 0.13, 0.55), (-1.5, 0.13, 0.9), 0.3), plain("#8c2f2c", noise, 0.5, 0.06), 0.15))
    fruits = [("#b3201c", "#d8912a"), ("#e0851a", "#e59a2c"), ("#8fae2e", "#b9c04a"), ("#d9b21f", "#e2c545")]
    places = [(-0.45, 0.1), (0.5, -0.25), (0.15, 0.85), (-1.1, -0.55), (1.45, 0.15), (0.95, 0.95)]
    for place, (x, z) in enumerate(places[: 4 + number % 3]):
        x, z = x + rng.uniform(-0.08, 0.08), z + rng.uniform(-0.08, 0.08)
        code, other = fruits[(number + place * (1 + number % 2)) % 4]
        skin = plain(code, noise, 0.5, 0.1, other)
        radius = rng.uniform(0.36, 0.46)
        if place % 3 == 2:  # a pear

            def profile(y: Array, r: float = radius) -> Array:
                t = np.clip(y / (2.4 * r), 0, 1)
                return 1.2 * r * np.sqrt(np.sin(np.pi * t**0.75)) * (0.62 + 0.38 * np.cos(np.pi * t))

            things.append((turned(profile, 0, 2.4 * radius, (x, 0, z)), skin, 0.25))
        else:
            things.append((ball(radius, (x, radius, z)), skin, 0.35))
        stalk = turned(lambda y: 0.025 + 0 * y, 0, 0.2, (x, radius * (2.3 if place % 3 == 2 else 1.9), z))
        things.append((stalk, plain("#4a3018"), 0.0))
    backdrop = np.broadcast_to(colour(walls[number % 4][1]), (height, width, 3))
    camera, target = np.array([0.3 * (number - 2), 1.9 + 0.2 * (number % 2), -4.6]), np.array([0, 0.5, 0.5])
    return render(things, backdrop, camera, target, 1.2, colour("#fff0d8"), colour("#a9b6c8"))


def village(rng: Generator, weather: str, ground: str, houses: int, trees: int) -> Array:
    """Houses and trees on a meadow before mountains."""
    backdrop = landscape(rng, weather, ground, relief=1.1, eye=0.3)
    noise = fractal(rng, 64, 1.9, 3)
    sunlight, shadow = map(colour, WEATHERS[weather][2:4])
    low, forest = GROUNDS[ground][1:3]

    def meadow(p: Array) -> Array:
        tuft = sample(noise, p[:, 0] * 0.9, p[:, 2] * 0.35, p[:, 0] * 0.05)
        patch = sample(noise, p[:, 0] * 0.05, p[:, 2] * 0.03, 0.1 + 0 * p[:, 0])
        path = np.exp(-(((p[:, 0] - 0.8 * np.sin(0.35 * p[:, 2])) / 0.55) ** 2))
        blade = sample(noise, p[:, 0] * 3.1, p[:, 2] * 0.9, p[:, 2] * 0.21)
        grass = mix(colour(low), colour(forest), 0.3 + 0.25 * patch + 0.2 * tuft)
        return mix(grass, colour("#b59f78"), path * 0.9) * (1 + 0.12 * tuft + 0.12 * blade)[:, None]

    things = [(lambda p: p[:, 1] + 0.08 - 0.12 * np.sin(0.5 * p[:, 0]) * np.sin(0.3 * p[:, 2]), meadow, 0.0)]
    walls = ["#e6dcc6", "#d8b48a", "#c98f6b", "#dfe3e2", "#b7c2b0"]
    roofs = ["#9c4a32", "#7a3b2c", "#5b5f66", "#a8653a"]
    for number in range(houses):
        side = -1 if number % 2 else 1
        x, z = side * (2.3 + rng.uniform(0, 1.4)), 2.5 + 3.1 * number + rng.uniform(-0.4, 0.4)
        a, half, tall = rng.uniform(0.9, 1.2), rng.uniform(0.65, 0.85), rng.uniform(0.55, 0.8)  # half sides
        angle = rng.uniform(-0.5, 0.5)
        plaster = facade(noise, walls[(number * 2) % 5], (a, half), (x, 0, z), angle)
        things.append((box((a, tall, half), (x, tall, z), angle), plaster, 0.05))
        roof = gable((a * 1.08, tall, half * 1.25), (x, 2 * tall, z), angle)
        things.append((roof, tiles(noise, roofs[number % 4], angle), 0.05))
        things.append((box((0.13, 0.35, 0.13), (x + 0.4 * a, 3 * tall, z), angle), plain("#8a5a48", noise, 1.0), 0.0))
    for _ in range(trees):
        x, z = rng.choice([-1, 1]) * rng.uniform(2.2, 6), rng.uniform(0.5, 13)
        tall = rng.uniform(1.3, 2.1)
        things.append((turned(lambda y: 0.14 - 0.03 * y, 0, tall, (x, 0, z)), plain("#4e3b2a", noise, 0.8, 0.3), 0.0))
        leaf = plain(forest, noise, 0.9, 0.3, low)
        things.append((foliage(noise, rng.uniform(0.75, 1.1), (x, tall + 0.4, z), rng.uniform(0.9, 1.3)), leaf, 0.0))
    camera, target = np.array([0.2, 1.5, -4.5]), np.array([0, 1.6, 5.0])
    return render(things, backdrop, camera, target, 0.95, sunlight, shadow * 1.1, haze=0.015)


def facade(noise: Array, code: str, size: tuple[float, float], at: tuple[float, float, float], angle: float) -> Paint:
    """Plaster with rows of windows, on a box of these half sides."""

    def paint(p: Array) -> Array:
        q = rotated(p - at, angle)
        along = np.where(np.abs(q[:, 0]) * size[1] > np.abs(q[:, 2]) * size[0], q[:, 2], q[:, 0])
        u, v = (along / 0.56 + 0.5) % 1, (q[:, 1] / 0.75 + 0.1) % 1
        pane = (np.abs(u - 0.5) < 0.2) & (np.abs(v - 0.55) < 0.24)
        frame = (np.abs(u - 0.5) < 0.26) & (np.abs(v - 0.55) < 0.3)
        cross = (np.abs(u - 0.5) < 0.025) | (np.abs(v - 0.55) < 0.03)
        plaster = plain(code, noise, 0.5, 0.06)(p)
        plaster = np.where(frame[:, None], colour("#f4f1e8"), plaster)
        return np.where((pane & ~cross)[:, None], colour("#2c3a48"), plaster)

    return paint


def tiles(noise: Array, code: str, angle: float) -> Paint:
    def paint(p: Array) -> Array:
        q = rotated(p, angle)
        row = q[:, 1] * 9
        joint = smooth(0.75, 1, row % 1) + 0.5 * smooth(0.8, 1, (q[:, 0] * 6 + 0.5 * np.floor(row)) % 1)
        return plain(code, noise, 1.1, 0.14)(p) * (1 - 0.45 * np.clip(joint, 0, 1))[:, None]

    return paint


def pebbles(rng: Generator) -> Array:
    """Round stones from above, wet where they lie deep."""
    height, width = SHORT * OVERSAMPLING, LONG * OVERSAMPLING
    noise = fractal(rng, 512, 1.3)
    y, x = np.mgrid[:height, :width] / height
    top, owner = np.full((height, width), -1.0), np.zeros((height, width), int)
    codes = np.array([colour(c) for c in ("#8d8a84", "#b9b2a4", "#6b6f74", "#a78d72", "#d8d3c6", "#55534f", "#9a6f5c")])
    for number in range(420):
        cx, cy, r, angle = (
            rng.uniform(0, width / height),
            rng.uniform(),
            rng.uniform(0.03, 0.095),
            rng.uniform(0, np.pi),
        )
        u = ((x - cx) * np.cos(angle) + (y - cy) * np.sin(angle)) / r
        v = ((y - cy) * np.cos(angle) - (x - cx) * np.sin(angle)) / (r * 0.72)
        cap = np.sqrt(np.clip(1 - u * u - v * v, 0, 1)) * r * 1.1 + number * 0.00012 + rng.uniform(0, 0.015)
        mine = (u * u + v * v < 1) & (cap > top)
        top[mine], owner[mine] = cap[mine], number
    surface = top + 0.0006 * sample(noise, x, y)
    down, right = np.gradient(surface, 1 / height)
    normal = unit(np.stack([-right, -down, np.ones_like(top)], axis=-1))
    bright = np.clip(dot(normal, unit(np.array([-0.5, -0.5, 0.75]))), 0, 1)
    dark = smooth(0, 0.05, top)
    base = codes[owner % 7] * (1 + 0.2 * sample(noise, x * 2 + owner * 0.1, y * 2)[..., None])
    return base * (bright * (0.3 + 0.9 * dark) + 0.25 * dark + 0.03)[..., None]


def flowers(rng: Generator) -> Array:
    """A meadow of flowers that gets finer with the distance, before hills."""
    scene = landscape(rng, "noon", "spring", relief=0.7, eye=0.4)
    height, width, _ = scene.shape
    y, x = np.mgrid[:height, :width]
    codes = [colour(c) for c in ("#d23a2e", "#e8c22a", "#f2efe6", "#8c4fb0", "#e87fa4")]
    for row in np.sort(height * (0.55 + 0.47 * rng.uniform(size=520) ** 0.7)):
        size = 2 + 30 * (row / height - 0.52) * rng.uniform(0.7, 1.3)
        cx, tint, turn, petals = rng.uniform(0, width), codes[rng.integers(5)], rng.uniform(0, 7), rng.integers(5, 9)
        top, left = max(0, int(row - 2 * size)), max(0, int(cx - 2 * size))
        part = np.s_[top : int(row + 4 * size), left : int(cx + 2 * size)]
        dx, dy = x[part] - cx, (y[part] - row) * 1.6
        r, angle = np.hypot(dx, dy) / size, np.arctan2(dy, dx)
        stalk = (np.abs(dx + 0.15 * dy) < 0.09 * size) & (dy > 0) & (dy < 6 * size)
        petal = r < 0.75 + 0.35 * np.cos(petals * angle + turn)
        shade = 0.6 + 0.35 * np.cos(angle + 2.2) + 0.25 * r
        view = scene[part]
        view[stalk] = colour("#3c6a26") * rng.uniform(0.6, 1.1)
        view[petal] = (tint * shade[..., None])[petal]
        view[r < 0.28] = colour("#6b4a12")
    return scene


# --------------------------------------------------------------------------------------------------------- paintings


def brush(path: Array, width: float, shape: tuple[int, int]) -> tuple[tuple[slice, slice], Array, Array] | None:
    """What a stroke along path (N, 2) of (x, y) covers: a part of the canvas, how far along (0..1) and across (-1..1).

    None if it is off the canvas (H, W).
    """
    low, high = path.min(axis=0) - width, path.max(axis=0) + width + 1
    left, top = np.maximum(low, 0).astype(int)
    right, bottom = np.minimum(high, shape[::-1]).astype(int)
    if right <= left or bottom <= top:
        return None
    y, x = np.mgrid[top:bottom, left:right]
    start, step = path[:-1], np.diff(path, axis=0)  # (N - 1, 2)
    q = np.stack([x, y], axis=-1)[:, :, None] - start  # (h, w, N - 1, 2)
    t = np.clip((q * step).sum(-1) / np.maximum((step**2).sum(-1), 1e-9), 0, 1)
    offset = q - t[..., None] * step
    distance = np.linalg.norm(offset, axis=-1)
    nearest = distance.argmin(axis=-1)[..., None]
    side = np.sign(step[:, 0] * offset[..., 1] - step[:, 1] * offset[..., 0])
    across = np.take_along_axis(distance * side, nearest, -1)[..., 0] / width
    along = (np.take_along_axis(t, nearest, -1)[..., 0] + nearest[..., 0]) / len(step)
    return np.s_[top:bottom, left:right], along, across


def strokes_painting(rng: Generator) -> Image.Image:
    """Thick strokes of bright colour that follow a swirling field: sun over hills and fields."""
    side = 400 * OVERSAMPLING
    height, width = side * 4 // 5, side
    swirls = [(0.28, 0.26, 0.17, 1), (0.62, 0.2, 0.12, -1), (0.86, 0.36, 0.1, 1)]  # x, y, radius, sense
    swirls += [(0.47, 0.44, 0.09, -1), (0.1, 0.5, 0.08, 1)]
    noise = fractal(rng, 256, 1.8)
    bristles = fractal(rng, 256, 0.6)

    def direction(x: float, y: float) -> tuple[float, float]:
        """Of the strokes at (x, y) in units of the height: along the swirls in the sky, along the land below."""
        dx, dy = 1.0, 0.25 * np.sin(5 * x) if y < 0.55 else 0.5 * np.cos(4 * x + 7 * y)
        for cx, cy, r, turn in swirls:
            cx = cx * width / height
            weight = 4.5 * np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (2 * r * r)) * (y < 0.62)
            away = np.hypot(x - cx, y - cy) + 1e-6
            dx, dy = dx - turn * weight * (y - cy) / away, dy + turn * weight * (x - cx) / away
        length = np.hypot(dx, dy)
        return dx / length, dy / length

    def tint(x: float, y: float) -> Array:
        """sRGB 0..1 of the paint at (x, y)."""
        wave = float(sample(noise, np.array(x * 0.4), np.array(y * 0.4)))
        hill = 0.56 + 0.07 * np.sin(3.1 * x + 0.6) + 0.03 * np.sin(9 * x)
        field = 0.72 + 0.04 * np.sin(2 * x + 2)
        if y < hill:
            ring = min((np.hypot(x - cx * width / height, y - cy) / r for cx, cy, r, _ in swirls))
            ramp = ["#fff3b0", "#f7c842", "#ef8a2e", "#58a9a5", "#2f6fb3", "#1f3f8f", "#2a5fae", "#173272"]
            level = min(ring * 2.6, 5.2) + 0.9 * wave + rng.normal(0, 0.5)
        elif y < field:
            ramp = ["#123c4a", "#1d5a56", "#2f7d4f", "#6b3f86", "#24406f", "#4f9a57"]
            level = 2.5 + 1.4 * wave + 12 * (y - 0.62) + rng.normal(0, 0.9)
        else:
            ramp = ["#e2a321", "#f3c93d", "#c9541f", "#e7772a", "#7d9a2f", "#a92f2a", "#f0b43a"]
            level = 3 + 2.2 * np.sin(14 * y + 5 * x + wave) + rng.normal(0, 0.9)
        code = ramp[int(np.clip(level, 0, len(ramp) - 1))]
        return colour(code) ** (1 / 2.2)

    canvas, relief = np.full((height, width, 3), 0.25), np.zeros((height, width))
    for size, count in ((15, 1300), (11, 2300), (7, 2600)):
        spots = rng.uniform(-0.03, 1.03, size=(count, 2)) * (width, height)
        centres = [(cx * width, cy * height) for cx, cy, *_ in swirls]
        for number, (x, y) in enumerate([*spots, *centres]):
            paint = tint(x / height, y / height)
            path = [(x, y)]
            for _ in range(int(rng.integers(6, 12))):
                dx, dy = direction(path[-1][0] / height, path[-1][1] / height)
                path.append((path[-1][0] + 0.75 * size * dx, path[-1][1] + 0.75 * size * dy))
            covered = brush(np.array(path), size, (height, width))
            if covered is None:
                continue
            part, along, across = covered
            hair = sample(bristles, across * 0.09 + number * 0.37, along * 0.02 + number * 0.11)
            edge = 1 - np.abs(across) ** 4 - smooth(0.75, 1.05, along + 0.12 * hair) - smooth(0.12, 0.0, along) * 0.3
            cover = smooth(0.05, 0.35, edge + 0.12 * hair)
            tone = paint * (1 + 0.13 * hair[..., None] + rng.normal(0, 0.05)) + rng.normal(0, 0.015, size=3)
            canvas[part] = mix(canvas[part], tone, cover)
            relief[part] += cover * (0.6 + 0.35 * hair + 0.4 * np.abs(across) ** 2 - 0.35 * relief[part])
    down, right = np.gradient(relief)
    light = 1 + np.clip(-0.55 * (right + down), -0.28, 0.34)  # thick paint, lit from the upper left
    return reduced(canvas * light[..., None])


def ink_painting(rng: Generator) -> Image.Image:
    """Mountains in mist, a pine, a boat: ink on rice paper, washes and dry strokes."""
    width, height = 400 * OVERSAMPLING, 500 * OVERSAMPLING
    noise, bristles = fractal(rng, 512, 1.7), fractal(rng, 512, 0.7)
    y, x = np.mgrid[:height, :width] / width
    ink = np.zeros((height, width))  # optical density: layers add up
    grain = fractal(rng, 512, 0.5)
    tooth = sample(grain, x * 0.9, y * 0.9)  # of the paper

    def touch(path: Array, size: float, dark: float, dry: float, taper: float = 0.5) -> None:
        covered = brush(path * width, size, ink.shape)
        if covered is None:
            return
        part, along, across = covered
        shift = rng.uniform(size=2)
        hair = sample(bristles, across * 0.05 + shift[0], along * 0.012 + shift[1]) + 0.35 * tooth[part]
        press = 1 - taper * np.abs(2 * along - 0.7) ** 2
        inside = smooth(0, 0.25, press - np.abs(across))
        worn = smooth(-0.5, 0.5, 1.3 - 2.4 * dry * (0.35 + along) - dry * hair + 0.2)
        ink[part] += dark * inside * worn * (0.85 + 0.2 * np.abs(across) / np.maximum(press, 0.1))

    def ridge(base: float, tall: float, rough: float, centre: float, spread: float) -> Array:
        line = np.arange(width) / width
        bumps = sample(noise, line * 0.35 + rng.uniform(), np.full(width, rng.uniform()))
        fine = sample(noise, line * 1.6 + rng.uniform(), np.full(width, rng.uniform()))
        peak = np.exp(-(((line - centre) / spread) ** 2)) + 0.35 * np.exp(-(((line - centre + 0.3) / 0.12) ** 2))
        return base - tall * peak - rough * (bumps + 0.3 * fine)

    layers = [  # base, height, roughness, centre, spread, darkness, texture strokes
        (0.50, 0.30, 0.020, 0.72, 0.20, 0.14, 0),
        (0.60, 0.36, 0.024, 0.40, 0.15, 0.28, 110),
        (0.78, 0.30, 0.028, 0.80, 0.17, 0.50, 220),
        (1.30, 0.24, 0.026, 0.08, 0.36, 0.85, 260),
    ]
    for base, tall, rough, centre, spread, dark, texture in layers:
        top = ridge(base, tall, rough, centre, spread)
        below = y - top[None]
        cloud = 0.5 + 0.35 * sample(noise, x * 0.5 + base, y * 1.1)
        ink *= 1 - 0.85 * smooth(-0.02, 0.12, below) * smooth(0.55, 0.2, np.abs(below - 0.16) * 2)  # mist before it
        wash = np.exp(-np.clip(below, 0, None) / (0.09 + 0.10 * cloud)) * smooth(-0.004, 0.006, below)
        ink += dark * wash * (0.62 + 0.3 * cloud + 0.07 * tooth)
        outline = np.stack([np.arange(width) / width, top], axis=1)[:: width // 60]
        for start in range(0, len(outline) - 6, 5):  # the contour, in broken strokes
            touch(outline[start : start + 7] + rng.normal(0, 0.0015, size=2), 3.5, dark * 1.1, 0.9)
        for _ in range(texture):  # along the slopes, as the hemp-fibre strokes of the old masters
            cx = rng.uniform(0.0, 1.0)
            column = min(int(cx * width), width - 2)
            depth = rng.uniform(0.0, 0.15) ** 1.2
            lean = np.clip((top[min(column + 20, width - 1)] - top[column]) * 22, -1.2, 1.2)
            t = np.linspace(0, 1, 7)[:, None]
            long = rng.uniform(0.03, 0.09)
            path = np.array([cx, top[column] + depth]) + t * long * (0.55 * lean + rng.normal(0, 0.1), 0.9)
            path[:, 0] += 0.006 * np.sin(3 * t[:, 0] + cx * 40)
            touch(path, rng.uniform(2.5, 6), dark * rng.uniform(0.25, 0.75) * np.exp(-depth * 7), 1.0)
        for _ in range(texture):  # moss dots
            column = int(width * (sorted(rng.uniform(size=3))[1] * 0.5 + centre - 0.25)) % width  # near the peak
            spot = np.array([column / width, top[column] + rng.uniform(-0.005, 0.05)])
            size, black = rng.uniform(1.6, 4.2), dark * rng.uniform(0.5, 1.2)
            touch(spot + np.array([[0, 0], [0.004, 0.002]]), size, black, 0.4, 0)

    # The pine on the near shore: trunk, boughs, and needles in fans.
    trunk = np.array([[0.215, 1.16], [0.24, 1.06], [0.215, 0.97], [0.255, 0.88], [0.30, 0.805], [0.31, 0.74]])
    t = np.linspace(0, 1, 40)
    trunk = np.stack([np.interp(t, np.linspace(0, 1, 6), trunk[:, i]) for i in (0, 1)], axis=1)
    trunk[:, 0] += 0.006 * np.sin(9 * t)
    for start, size in ((0, 15), (8, 13), (16, 11), (24, 8), (31, 5)):
        touch(trunk[start : start + 12], size, 0.9, 0.75, 0.15)
    for number in range(11):
        root = trunk[10 + int(number * 2.7)]
        side = -1 if number % 2 else 1
        reach = rng.uniform(0.07, 0.15) * (1.15 - 0.05 * number)
        s = np.linspace(0, 1, 9)
        bough = root + np.stack([side * reach * s, -0.03 * np.sin(2.4 * s) + 0.028 * s * s], axis=1)
        touch(bough, 4.5, 1.0, 0.6, 0.4)
        for tip in bough[2:]:
            for _ in range(12):
                angle = rng.normal(-np.pi / 2, 0.75)
                length = rng.uniform(0.014, 0.028)
                end = tip + length * np.array([np.cos(angle), np.sin(angle)])
                needle = np.stack([tip, (tip + end) / 2, end]) + rng.normal(0, 0.006, size=2)
                touch(needle, 1.6, rng.uniform(0.4, 1.0), 0.3)
    # A boat on the still water, ripples, birds.
    hull = np.array([[0.60, 1.030], [0.64, 1.048], [0.70, 1.050], [0.745, 1.030]])
    touch(hull, 5, 1.1, 0.5, 0.3)
    touch(np.array([[0.655, 1.036], [0.665, 1.005], [0.695, 1.003], [0.705, 1.036]]), 3, 0.8, 0.5, 0.1)
    touch(np.array([[0.635, 1.040], [0.63, 1.000], [0.633, 0.985]]), 3, 1.1, 0.2, 0.2)
    for _ in range(26):
        cx, cy = rng.uniform(0.5, 0.95), rng.uniform(1.04, 1.17)
        touch(np.array([[cx, cy], [cx + rng.uniform(0.04, 0.12), cy + 0.002]]), 1.8, rng.uniform(0.1, 0.3), 1.1)
    for cx, cy in ((0.52, 0.12), (0.56, 0.10), (0.585, 0.135), (0.63, 0.115)):
        wings = np.array([[-0.014, -0.008], [-0.005, -0.006], [0, 0], [0.006, -0.007], [0.015, -0.007]])
        touch(np.array([cx, cy]) + wings, 1.7, 0.7, 0.2)

    fibres = fractal(rng, 512, 1.0)
    paper = colour("#efe6d2") ** (1 / 2.2) * (1 + 0.012 * tooth + 0.012 * sample(fibres, x * 0.4, y * 2))[..., None]
    black = np.array([1.0, 0.985, 0.94])  # of pine soot: a little warmer where it is thin
    picture = paper * np.exp(-1.9 * ink[..., None] * black)
    seal = (np.abs(x - 0.905) < 0.028) & (np.abs(y - 0.085) < 0.028)
    bars = ((0, -0.013, 0.018, 0.002), (0, 0, 0.002, 0.018), (-0.01, 0.008, 0.008, 0.002), (0.011, 0.008, 0.002, 0.01))
    for dx, dy, w, h in bars:  # what is cut out of it: a sign that means nothing
        seal &= (np.abs(x - 0.905 - dx) > w) | (np.abs(y - 0.085 - dy) > h)
    red = np.array([0.72, 0.16, 0.12])
    picture = mix(picture, red * (1 + 0.05 * tooth[..., None]), 0.88 * seal * smooth(-2.2, -1.2, tooth))
    return reduced(picture)


def reduced(picture: Array) -> Image.Image:
    """(H, W, 3) in 0..1 (sRGB) at the size to save it in."""
    image = Image.fromarray((np.clip(picture, 0, 1) * 255 + 0.5).astype(np.uint8))
    return image.resize((image.width // OVERSAMPLING, image.height // OVERSAMPLING), Image.Resampling.LANCZOS)


# --------------------------------------------------------------------------------------------------------------- all

LANDSCAPES = {
    "alps_noon": {"weather": "noon", "ground": "alpine", "relief": 1.2, "eye": 0.6},
    "alps_dawn": {"weather": "dawn", "ground": "alpine", "relief": 1.3, "eye": 0.8},
    "autumn_hills": {"weather": "clear", "ground": "autumn", "relief": 0.8, "eye": 0.4},
    "desert_dusk": {"weather": "dusk", "ground": "desert", "relief": 1.5, "eye": 0.5},
    "desert_noon": {"weather": "clear", "ground": "desert", "relief": 2.2, "eye": 0.9},
    "winter_ridge": {"weather": "clear", "ground": "winter", "relief": 1.3, "eye": 0.7},
    "winter_dusk": {"weather": "dusk", "ground": "winter", "relief": 1.0, "eye": 0.5},
    "misty_hills": {"weather": "grey", "ground": "spring", "relief": 1.0, "eye": 0.6},
    "lake_noon": {"weather": "noon", "ground": "alpine", "relief": 1.3, "lake": 0.8, "eye": 0.4},
    "lake_dawn": {"weather": "dawn", "ground": "spring", "relief": 1.2, "lake": 0.7, "eye": 0.5},
    "lake_autumn": {"weather": "noon", "ground": "autumn", "relief": 1.0, "lake": 0.8, "eye": 0.4},
    "fjord_dusk": {"weather": "dusk", "ground": "alpine", "relief": 1.4, "lake": 0.9, "eye": 0.5, "upright": True},
    "valley": {"weather": "noon", "ground": "spring", "relief": 1.4, "eye": 0.9, "upright": True},
}
VILLAGES = {
    "village_summer": ("noon", "alpine", 4, 6),
    "village_autumn": ("clear", "autumn", 3, 7),
    "village_winter": ("dawn", "winter", 4, 3),
    "park": ("noon", "spring", 0, 11),
}


def draw(folder: Path, only: str = "") -> None:
    """Writes the photographs and the paintings whose names contain `only`."""
    scenes: dict[str, Callable[[Generator], Array]] = {}
    for name, given in LANDSCAPES.items():
        scenes[name] = lambda rng, given=given: landscape(rng, **given)
    for name, given in VILLAGES.items():
        scenes[name] = lambda rng, given=given: village(rng, *given)
    for number in range(5):
        scenes[f"fruit_{number + 1}"] = lambda rng, number=number: still_life(rng, number)
    scenes |= {"pebbles": pebbles, "flowers": flowers}
    for seed, (name, scene) in enumerate(scenes.items()):
        rng = np.random.default_rng(seed)
        save(folder / "photos" / f"{name}.jpg", lambda rng=rng, scene=scene: photograph(rng, scene(rng)), only, 80)
    for name, painting in {"ink": ink_painting, "strokes": strokes_painting}.items():
        save(folder / "styles" / f"{name}.jpg", lambda painting=painting: painting(np.random.default_rng(0)), only, 88)


def save(path: Path, make: Callable[[], Image.Image], only: str, quality: int) -> None:
    if only in path.stem:
        path.parent.mkdir(parents=True, exist_ok=True)
        make().save(path, quality=quality, optimize=True)
        print(f"{path}  {path.stat().st_size // 1000} kB")


if __name__ == "__main__":
    draw(Path(sys.argv[1]) if sys.argv[1:] else Path(__file__).parent / "sample", *sys.argv[2:3])
