"""Renders rooms from a camera that looks down through the open ceiling, moves and rises; writes H.264."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from PIL import Image, ImageDraw

from spacer.data.scenes.scene import Point, Scene, SceneObject

Colour = tuple[int, int, int]

HALF_ANGLE = math.tan(math.radians(17.5))  # half of a 35 degree field of view: tall furniture does not fill the frame
WALL_HEIGHT = 2.4
OVERVIEW = 1.12  # window of the overview, as a multiple of the room's longer side, so that the walls are visible
OUTSIDE: Colour = (38, 40, 46)


@dataclass(frozen=True)
class Part:
    """A box that is part of a piece of furniture, in fractions of the whole: (x0, x1), (y0, y1), (z0, z1)."""

    x: tuple[float, float]
    y: tuple[float, float]
    z: tuple[float, float]
    colour: Colour


_ALL = (0.0, 1.0)

# The shape of each category. The front faces -y before rotation.
LOOKS: dict[str, tuple[Part, ...]] = {
    "bed": (
        Part(_ALL, _ALL, (0, 0.45), (235, 232, 225)),
        Part(_ALL, (0, 0.62), (0.45, 0.5), (70, 96, 190)),
        Part((0.12, 0.88), (0.72, 0.92), (0.45, 0.62), (250, 250, 250)),
        Part(_ALL, (0.96, 1), (0, 1), (120, 84, 52)),
    ),
    "bookshelf": (
        Part(_ALL, _ALL, (0, 1), (112, 66, 28)),
        Part((0.06, 0.3), (0.1, 0.9), (1, 1.02), (196, 60, 48)),
        Part((0.36, 0.62), (0.1, 0.9), (1, 1.02), (230, 190, 60)),
        Part((0.68, 0.94), (0.1, 0.9), (1, 1.02), (60, 120, 90)),
    ),
    "chair": (
        Part(_ALL, _ALL, (0.42, 0.5), (222, 60, 50)),
        Part(_ALL, (0.84, 1), (0.5, 1), (150, 30, 28)),
    ),
    "lamp": (
        Part((0.4, 0.6), (0.4, 0.6), (0, 0.7), (60, 60, 60)),
        Part(_ALL, _ALL, (0.7, 1), (255, 236, 120)),
    ),
    "piano": (
        Part(_ALL, _ALL, (0, 1), (24, 24, 28)),
        Part((0.04, 0.96), (0, 0.35), (0.6, 1.01), (246, 246, 240)),
    ),
    "plant": (
        Part((0.25, 0.75), (0.25, 0.75), (0, 0.35), (176, 92, 50)),
        Part(_ALL, _ALL, (0.35, 0.8), (44, 150, 60)),
        Part((0.2, 0.8), (0.2, 0.8), (0.8, 1), (96, 200, 90)),
    ),
    "refrigerator": (
        Part(_ALL, _ALL, (0, 1), (198, 212, 222)),
        Part((0.1, 0.9), (0, 0.12), (0.3, 1.01), (120, 132, 144)),
    ),
    "sofa": (
        Part(_ALL, _ALL, (0, 0.5), (150, 70, 170)),
        Part(_ALL, (0.75, 1), (0.5, 1), (110, 44, 130)),
        Part((0, 0.1), _ALL, (0.5, 0.75), (110, 44, 130)),
        Part((0.9, 1), _ALL, (0.5, 0.75), (110, 44, 130)),
    ),
    "table": (
        Part((0.06, 0.94), (0.06, 0.94), (0, 0.9), (120, 70, 26)),
        Part(_ALL, _ALL, (0.9, 1), (216, 140, 60)),
    ),
    "television": (
        Part(_ALL, _ALL, (0, 0.45), (96, 96, 104)),
        Part(_ALL, (0.4, 0.6), (0.45, 1), (20, 120, 200)),
    ),
}


@dataclass(frozen=True)
class Camera:
    """A pinhole above (x, y) that sees a square of `window` metres on the floor, up on the image being +y."""

    x: float
    y: float
    window: float
    pixels: int

    @property
    def height(self) -> float:
        """Metres above the floor."""
        return self.window / 2 / HALF_ANGLE

    def project(self, x: float, y: float, z: float) -> Point:
        """Image coordinates in pixels, origin at the top left, of a point in the room."""
        scale = self.pixels / self.window * self.height / (self.height - z)
        return self.pixels / 2 + (x - self.x) * scale, self.pixels / 2 - (y - self.y) * scale

    def sees(self, item: SceneObject) -> bool:
        """Whether the object begins to show: some of its footprint is in the picture, by a twentieth of its width."""
        reach = self.window * 0.45
        xs, ys = zip(*item.footprint(), strict=True)
        across = min(xs) - self.x <= reach and self.x - max(xs) <= reach
        return across and min(ys) - self.y <= reach and self.y - max(ys) <= reach


def camera_path(
    bounds: tuple[float, float, float, float],
    *,
    frames: int,
    pixels: int,
    start: int,
    clockwise: bool,
    coverage: float = 0.6,
    above: Camera | None = None,
) -> list[Camera]:
    """A tour of the room's four corners from corner `start`: dwell, travel on, dwell; then the camera rises.

    All of the floor is seen on the tour, `coverage` of the room's longer side at once, and once more as a whole in the
    last quarter of the frames, from `above` where that is given.
    """
    x0, y0, x1, y1 = bounds
    window = coverage * max(x1 - x0, y1 - y0)
    near_x, near_y = min(window * 0.44, (x1 - x0) / 2), min(window * 0.44, (y1 - y0) / 2)
    corners = [(x0 + near_x, y0 + near_y), (x1 - near_x, y0 + near_y), (x1 - near_x, y1 - near_y)]
    corners.append((x0 + near_x, y1 - near_y))
    step = -1 if clockwise else 1
    stops = [corners[(start + step * i) % 4] for i in range(4)]
    touring = frames - frames // 4
    cameras = []
    for frame in range(touring):
        progress = frame / max(touring - 1, 1) * 3
        leg = min(int(progress), 2)
        # smoothstep: at rest at both ends, like a hand-held camera
        share = min(1.0, max(0.0, (progress - leg - 0.2) / 0.6))
        share = share * share * (3 - 2 * share)
        (ax, ay), (bx, by) = stops[leg], stops[leg + 1]
        cameras.append(Camera(ax + (bx - ax) * share, ay + (by - ay) * share, window, pixels))
    return cameras + [above or overview(bounds, pixels)] * (frames - touring)


def overview(bounds: tuple[float, float, float, float], pixels: int, side: float | None = None) -> Camera:
    """High above the middle of the room, with all of it in view: as high as for a room of `side` metres, where that is
    given, so that sizes can be told."""
    x0, y0, x1, y1 = bounds
    return Camera((x0 + x1) / 2, (y0 + y1) / 2, OVERVIEW * (side or max(x1 - x0, y1 - y0)), pixels)


def draw(scene: Scene, camera: Camera) -> Image.Image:
    """One frame, RGB, `camera.pixels` square.

    The floor's shading is a gradient over the whole room, red along x and blue along y, as of two windows: a model
    with rotary positions only has no other hint of where on the floor a patch lies.
    """
    image = Image.fromarray(_floor(scene, camera))
    pen = ImageDraw.Draw(image)
    _walls(scene, camera, pen)
    nadir = (camera.x, camera.y)
    # painter's algorithm: what is nearer to the point below the camera occludes what is further out
    for item in sorted(scene.objects, key=lambda o: math.dist(o.place, nadir), reverse=True):
        for part in LOOKS[item.category]:
            _box(item, part, camera, pen)
    return image


def _floor(scene: Scene, camera: Camera) -> np.ndarray:
    x0, y0, x1, y1 = scene.bounds
    along = (np.arange(camera.pixels) + 0.5) / camera.pixels - 0.5
    u = (camera.x + along * camera.window - x0) / (x1 - x0)
    v = (camera.y - along * camera.window - y0) / (y1 - y0)
    inside = ((u >= 0) & (u <= 1))[None, :] & ((v >= 0) & (v <= 1))[:, None]
    plank = 1.0 - 0.07 * ((v * (y1 - y0) / 0.25) % 1 < 0.12)
    floor = np.empty((camera.pixels, camera.pixels, 3))
    floor[..., 0] = (70 + 170 * np.clip(u, 0, 1))[None, :] * plank[:, None]
    floor[..., 1] = 140 * plank[:, None]
    floor[..., 2] = ((70 + 170 * np.clip(v, 0, 1)) * plank)[:, None]
    floor[~inside] = OUTSIDE
    return floor.astype(np.uint8)


def _walls(scene: Scene, camera: Camera, pen: ImageDraw.ImageDraw) -> None:
    x0, y0, x1, y1 = scene.bounds
    corners = [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]
    for index, shade in enumerate((206, 190, 214, 198)):
        a, b = corners[index], corners[(index + 1) % 4]
        wall = [(*a, 0.0), (*b, 0.0), (*b, WALL_HEIGHT), (*a, WALL_HEIGHT)]
        pen.polygon([camera.project(*p) for p in wall], fill=(shade, shade, shade - 8), outline=(150, 150, 146))


def _box(item: SceneObject, part: Part, camera: Camera, pen: ImageDraw.ImageDraw) -> None:
    foot = item.centre[2] - item.size[2] / 2
    low, high = foot + part.z[0] * item.size[2], foot + part.z[1] * item.size[2]
    corners = []
    cos, sin = math.cos(item.yaw), math.sin(item.yaw)
    for fx, fy in ((part.x[0], part.y[0]), (part.x[1], part.y[0]), (part.x[1], part.y[1]), (part.x[0], part.y[1])):
        dx, dy = (fx - 0.5) * item.size[0], (fy - 0.5) * item.size[1]
        corners.append((item.centre[0] + cos * dx - sin * dy, item.centre[1] + sin * dx + cos * dy))
    for index, light in enumerate((0.62, 0.74, 0.56, 0.68)):
        a, b = corners[index], corners[(index + 1) % 4]
        outward = (b[1] - a[1], a[0] - b[0])
        if outward[0] * (camera.x - a[0]) + outward[1] * (camera.y - a[1]) > 0:
            side = [(*a, low), (*b, low), (*b, high), (*a, high)]
            pen.polygon([camera.project(*p) for p in side], fill=_shade(part.colour, light))
    top = [camera.project(*corner, high) for corner in corners]
    pen.polygon(top, fill=part.colour, outline=_shade(part.colour, 0.8))


def _shade(colour: Colour, light: float) -> Colour:
    return int(colour[0] * light), int(colour[1] * light), int(colour[2] * light)


def write_video(scene: Scene, cameras: list[Camera], fps: int, path: Path) -> None:
    """Renders a frame for each camera into an H.264 .mp4 at `fps` frames a second."""
    with av.open(str(path), "w") as container:
        # x264's lookahead reads uninitialized memory, so that the same frames sometimes give different files;
        # with tune=zerolatency there is no lookahead
        options = {"crf": "18", "preset": "veryfast", "tune": "zerolatency"}
        stream = container.add_stream("libx264", rate=fps, options=options)
        stream.width = stream.height = cameras[0].pixels
        stream.pix_fmt = "yuv420p"
        stream.thread_count = 1  # scenes are rendered in parallel: one encoder thread each
        for camera in cameras:
            container.mux(stream.encode(av.VideoFrame.from_image(draw(scene, camera))))
        container.mux(stream.encode())
