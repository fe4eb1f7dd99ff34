"""Questions asked with other media than their own."""

from __future__ import annotations

from pathlib import Path

import pytest

from spacer.data.controls import with_other_media
from spacer.data.samples import Medium, Sample
from spacer.errors import UserError
from tests.unit.configs import only_problem, problems
from tests.unit.data.making import sample


def about(identity: str, file: str, scene: str, **changes: object) -> Sample:
    return sample(identity, path=Path(f"/{file}"), scene=scene, **changes)


def test_questions_about_one_video_share_another_scenes() -> None:
    asked = [about(str(i), f"v{i // 3}.mp4", f"s{i // 6}") for i in range(18)]  # two videos a scene
    found = with_other_media(asked)
    scene_of = {item.path: item.scene for item in asked}
    assert [item.id for item in found] == [item.id for item in asked]
    assert all(scene_of[new.path] != old.scene == new.scene for old, new in zip(asked, found, strict=True))
    for old, new in zip(asked, found, strict=True):
        assert new.solution == old.solution and new.true_map == old.true_map
        assert {other.path for other, own in zip(found, asked, strict=True) if own.path == old.path} == {new.path}
    backwards = {item.id: item.path for item in with_other_media(asked[::-1])}
    assert all(backwards[item.id] == item.path for item in found)  # whatever the order


def test_images_go_to_images() -> None:
    asked = [about(str(i), f"{i}", f"s{i}", data_type=kind) for i, kind in enumerate(["image", "video"] * 3)]
    kinds = {item.path: item.data_type for item in asked}
    assert all(kinds[item.path] == item.data_type for item in with_other_media(asked))


def test_questions_of_text_stay_as_they_are() -> None:
    words = sample("w", data_type="text", path=Path("w"), scene="text/w")
    videos = [about("0", "a.mp4", "s"), about("1", "b.mp4", "t")]
    found = with_other_media([videos[0], words, videos[1]])
    assert found[1] == words and [item.path for item in found[::2]] == [videos[1].path, videos[0].path]
    assert with_other_media([words]) == [words]


def test_one_scene_has_no_other() -> None:
    with pytest.raises(UserError, match="leave other_video out"):
        with_other_media([about("0", "a.mp4", "s"), about("1", "b.mp4", "s")])


def test_a_question_with_a_number_of_images_of_its_own_is_named() -> None:
    two, three = ([Medium("image", Path(f"/{n}{i}.png")) for i in range(n)] for n in (2, 3))
    asked = [about(name, f"{name}.png", name, data_type="image", media=tuple(two)) for name in ("a", "b")]
    odd = about("odd", "c.png", "c", data_type="image", media=tuple(three))
    assert len(with_other_media(asked)) == 2
    with pytest.raises(UserError, match=r"question 'odd', of scene c, .* same number .*, 3 images: leave"):
        with_other_media([*asked, odd])


def test_controls_that_make_no_sense() -> None:
    assert "more than once" in only_problem(evaluation__controls=["none", "none"])
    found = problems(evaluation__controls=["gray"])
    assert "evaluation.controls[0]" in found[0] and "did you mean grey?" in found[0]
