"""Short questions about a picture of a room: how many objects of a category there are, and where."""

from __future__ import annotations

import json

import numpy as np

from spacer.data.scenes.lines import Question
from spacer.data.scenes.scene import Scene

COUNT = "How many objects of the category {} are in the room?"
PLACES = "On which cells of the map are the objects of the category {}?"


def short_questions(scene: Scene, count: int, rng: np.random.Generator) -> list[Question]:
    """Up to `count` questions, each about a different category. Categories with several objects come first, since the
    count of the others is always 1."""
    categories = [str(name) for name in rng.permutation(scene.categories())]
    categories.sort(key=lambda name: len(scene.of_category(name)) == 1)
    asked = []
    for category in categories[:count]:
        cells = sorted([*scene.cell(item.place)] for item in scene.of_category(category))
        if rng.random() < 0.5:
            asked.append(Question("object_counting", "numerical", COUNT.format(category), (), str(len(cells)), ""))
        else:
            answer = json.dumps({category: cells}, separators=(",", ":"))
            asked.append(Question("object_places", "free-form", PLACES.format(category), (), answer, ""))
    return asked
