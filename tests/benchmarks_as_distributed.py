"""Small benchmarks in the files, fields and folders in which their authors distribute them.

Each function writes a benchmark under a root: every task at least once, about as many videos as it is given (at least
two), which are copied to where the benchmark has its media. Without videos only the annotations are written.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow.parquet as pq

from tests.easi_as_distributed import (
    blink,
    embspatial,
    mindcube,
    mmsi_bench,
    mmsi_video,
    omnispatial,
    revsi,
    site_bench,
    threedsrbench,
    viewspatial,
)
from tests.written_files import Row, as_json, as_lines, parquet, picture, place

SPAR_NUMBERS = tuple(
    f"{what}_prediction_{side}" for what in ("depth", "distance") for side in ("oc", "oo", "oc_mv", "oo_mv")
)
SPAR_CHOICES = (
    *("obj_spatial_relation_oo", "obj_spatial_relation_oc_mv", "obj_spatial_relation_oo_mv"),
    *("spatial_imagination_oc", "spatial_imagination_oo", "spatial_imagination_oc_mv", "spatial_imagination_oo_mv"),
    *("position_matching", "camera_motion_infer", "distance_infer_center_oo", "distance_infer_center_oo_mv"),
)
STI_TASKS = (
    *("3D Video Grounding", "Dimensional Measurement", "Displacement & Path Length", "Ego-Centric Orientation"),
    *("Pose Estimation", "Spatial Relation", "Speed & Acceleration", "Trajectory Description"),
)
LVB_CATEGORIES = "S2E S2O S2A E2O O2E T2E T2O T2A E3E O3O SSS SOS SAA T3E T3O TOS TAA".split()  # noqa: SIM905


def vsi_bench(root: Path, videos: Sequence[Path] = (), *, rounds: int = 1, scenes: int = 2) -> Path:
    """Ten questions, one of each type: ids 0 to 5 choices (truth B), 6 to 9 numbers (truth 2.0, 4, 150, 20.0).

    With `rounds` the ten types come again so many times. Questions take their `scenes` in turn.
    """
    names = [("arkitscenes", "41069021"), *(("scannet", f"scene{11 * n:04}_00") for n in range(1, scenes))]
    place(videos, *(root / dataset / f"{scene}.mp4" for dataset, scene in names))
    types = (
        *("object_rel_direction_easy", "object_rel_direction_medium", "object_rel_direction_hard"),
        *("object_rel_distance", "route_planning", "obj_appearance_order"),
        *("object_abs_distance", "object_counting", "object_size_estimation", "room_size_estimation"),
    )
    truths = ("B",) * 6 + ("2.0", "4", "150", "20.0")
    rows = []
    for number, (kind, truth) in enumerate(list(zip(types, truths, strict=True)) * rounds):
        dataset, scene = names[number % scenes]
        options = ["A. the lamp", "B. the chair", "C. the table", "D. the bed"] if truth == "B" else None
        question = f"Question {number} of {kind}?"
        rows.append({"id": number, "dataset": dataset, "scene_name": scene, "question_type": kind})
        rows[-1] |= {"question": question, "ground_truth": truth, "options": options}
    return parquet(root / "test-00000-of-00001.parquet", rows)


def vsi_bench_of_today(root: Path, forms: Sequence[str] = ("halves", "lines", "ids"), rounds: int = 1) -> set[str]:
    """The same questions in the files of November 2025, of which the odd ids are debiased; returns these.

    `forms`: `halves` are test_debiased.parquet and test_pruned.parquet, which both have the first debiased question;
    `lines` is test.jsonl with that question twice; `ids` is pruned_ids.txt.
    """
    old = vsi_bench(root, rounds=rounds)
    rows = pq.read_table(old).to_pylist()
    old.unlink()
    debiased, pruned = ([row for row in rows if row["id"] % 2 == rest] for rest in (1, 0))
    if "halves" in forms:
        parquet(root / "test_debiased.parquet", [row | {"pruned": False} for row in debiased])
        parquet(root / "test_pruned.parquet", [row | {"pruned": True} for row in [*pruned, debiased[0]]])
    if "lines" in forms:
        as_lines(root / "test.jsonl", [*rows, debiased[0]])
    if "ids" in forms:
        (root / "pruned_ids.txt").write_text("".join(f"{row['id']}\n" for row in pruned), encoding="utf-8")
    return {str(row["id"]) for row in debiased}


def sti_bench(root: Path, videos: Sequence[Path] = (), *, as_text: bool = False, folder: str = "video") -> Path:
    """Nine questions, one of each task and a second of the last, ids 1 to 9, truth C. The last has four candidates.

    Candidates are a column of structs, or with `as_text` of JSON strings.
    """
    names = ("scene0011_00.mp4", "camera_07.mp4")
    place(videos, *(root / folder / name for name in names))
    rows = []
    for number, task in enumerate((*STI_TASKS, STI_TASKS[-1]), start=1):
        texts = {"A": "1 m", "B": "2 m", "C": "3.5 m", "D": "4 m", "E": "5 m"}
        if number == 9:
            del texts["E"]  # null, in a column of structs
        rows.append({"ID": number, "Video": names[number % 2], "time_start": 0.5, "time_end": 2.0, "scene": "indoor"})
        rows[-1] |= {"Question": f"Question {number}?", "Candidates": json.dumps(texts) if as_text else texts}
        rows[-1] |= {"Answer": "C", "Task": task}
    return parquet(root / "qa.parquet", rows)


def spar_bench(root: Path, videos: Sequence[Path] = ()) -> Path:
    """Twenty questions in four shards, one of each task; id = task. Numbers are 2.0, choices A, the motion one of three
    axes. Tasks on several images (`_mv` and three more) have two; the pictures' shades count up from 0.
    """
    del videos  # it has pictures in their place
    motion = {"view_change_infer": "move_right:0.4,move_forward:2.0,rotate_left:30"}
    truths = dict.fromkeys(SPAR_NUMBERS, "2.0") | dict.fromkeys(SPAR_CHOICES, "A") | motion
    several = ("view_change_infer", "position_matching", "camera_motion_infer")
    rows: list[Row] = []
    shade = 0
    for task, truth in truths.items():
        count = 2 if task.endswith("_mv") or task in several else 1
        images = [{"bytes": picture(shade + i), "path": None} for i in range(count)]
        shade += count
        rows.append({"id": task, "task": task, "img_type": "multi_view" if count > 1 else "single_view"})
        rows[-1] |= {"image": images, "question": f"Question of {task}?\nA. left B. right", "answer": truth}
    for shard in range(4):
        parquet(root / f"data/test-0000{shard}-of-00004.parquet", rows[5 * shard : 5 * shard + 5], row_group_size=2)
    return root / "data/test-00000-of-00004.parquet"


def video_mme(root: Path, videos: Sequence[Path] = ()) -> Path:
    """Six questions, two of each duration and three of each of two task types; ids 001-1 to 003-2, truth D.

    The first video is `data/fFjv93ACGo8.mp4`, the second has another ending and subtitles, the third is not there.
    """
    ids = ("fFjv93ACGo8", "N1cdUjctpG8", "missing_one")
    place(videos, root / f"data/{ids[0]}.mp4", root / f"data/{ids[1]}.MP4")
    subtitles = root / f"subtitle/{ids[1]}.srt"
    subtitles.parent.mkdir(parents=True, exist_ok=True)
    subtitles.write_text("1\n00:00:00,500 --> 00:00:01,500\n<i>Hello</i>\nthere\n", encoding="utf-8")
    rows = []
    for video, (name, duration) in enumerate(zip(ids, ("short", "medium", "long"), strict=True), start=1):
        for number, task in enumerate(("Counting Problem", "OCR Problems"), start=1):
            rows.append({"video_id": f"{video:03d}", "duration": duration, "domain": "Knowledge"})
            rows[-1] |= {"sub_category": "History", "url": "", "videoID": name, "question_id": f"{video:03d}-{number}"}
            rows[-1] |= {"task_type": task, "question": f"Question {number} about video {video}?", "answer": "D"}
            rows[-1] |= {"options": ["A. Apples.", "B. Candles.", "C. Berries.", "D. The three kinds."]}
    return parquet(root / "videomme/test-00000-of-00001.parquet", rows)


def tempcompass(root: Path, videos: Sequence[Path] = (), *, captioning: bool = True) -> Path:
    """Eleven questions that are scored: of each of two videos and some dimensions, in three formats.

    multi-choice 101/{action,speed,direction}, 102/{order,attribute_change}: truth B. yes_no 101/action (yes, no),
    102/order (yes). caption_matching 101/{speed: Sentence A, direction: Option 2}, 102/order: Caption B.
    """
    place(videos, root / "videos/101.mp4", root / "videos/102.mp4")

    def choice(*dimensions: str) -> Row:
        # a missing space and one too many, as in a few questions of the authors' file
        question = "What happens?\nA. running\nB. walking slowly\nC.Both\n D. away from the screen"
        return {dimension: [{"question": question, "answer": "B. walking slowly"}] for dimension in dimensions}

    def matching(label: str, first: str, second: str, right: int) -> Row:
        lines = [f"{label} {first}: A man runs.", f"{label} {second}: A man walks."]
        return {"question": "\n".join(["Which fits better?", *lines]), "answer": lines[right]}

    as_json(
        root / "questions/multi-choice.json",
        {"101": choice("action", "speed", "direction"), "102": choice("order", "attribute_change")},
    )
    yes, no = ({"question": f"Is it {answer}?", "answer": answer} for answer in ("yes", "no"))
    as_json(root / "questions/yes_no.json", {"101": {"action": [yes, no]}, "102": {"order": [yes]}})
    as_json(
        root / "questions/caption_matching.json",
        {
            "101": {"speed": [matching("Sentence", "A", "B", 0)], "direction": [matching("Option", "1", "2", 1)]},
            "102": {"order": [matching("Caption", "A", "B", 1)]},
        },
    )
    if captioning:
        caption = {"question": "Describe it.", "answer": "B. walking", "mc_question": "…", "mc_answer": "B"}
        as_json(root / "questions/captioning.json", {"101": {"action": [caption]}})
    return root / "questions/multi-choice.json"


def longvideobench(root: Path, videos: Sequence[Path] = ()) -> Path:
    """Seventeen questions, one of each category, ids {video}_{n}, truth C of four (of five in the last).

    Perception comes in groups of 15 and 60 seconds, relation of 600 and 3600. Both videos have subtitles, in two forms.
    """
    names = ("86CxyhFV9MI", "@user.1-7312345")
    place(videos, *(root / f"videos/{name}.mp4" for name in names))
    timed = [{"timestamp": [10.0, 12.0], "text": "Hello"}, {"timestamp": [12.5, None], "text": "there"}]
    clocked = [{"start": "00:00:01.000", "end": "00:00:02.500", "line": "Hello"}]
    as_json(root / f"subtitles/{names[0]}_en.json", timed)
    as_json(root / f"subtitles/{names[1]}_en.json", clocked)
    rows = []
    for number, category in enumerate(LVB_CATEGORIES):
        name = names[number % 2]
        candidates = ["a red car", "a blue car", "two cars", "B"] + ["none"] * (number == 16)
        rows.append({"video_id": name, "video_path": f"{name}.mp4", "subtitle_path": f"{name}_en.json"})
        rows[-1] |= {"id": f"{name}_{number}", "question": f"Question {number}?", "candidates": candidates}
        rows[-1] |= {"correct_choice": 2, "question_category": category, "topic_category": "NP-News", "duration": 14.2}
        rows[-1] |= {"duration_group": (15, 60)[number % 2] if number < 8 else (600, 3600)[number % 2], "view_count": 1}
        rows[-1] |= {"level": "L1", "starting_timestamp_for_subtitles": 10 if number % 2 == 0 else 0}
    return as_json(root / "lvb_val.json", rows)


def vsi_debiased(root: Path, videos: Sequence[Path] = ()) -> Path:
    """The ten questions of `vsi_bench`, all of them debiased."""
    old = vsi_bench(root, videos)
    return old.rename(root / "test_debiased.parquet")


_MAKERS = (
    *(
        vsi_bench,
        sti_bench,
        spar_bench,
        video_mme,
        tempcompass,
        longvideobench,
        mmsi_bench,
        mindcube,
        viewspatial,
        blink,
    ),
    *(threedsrbench, embspatial, omnispatial, site_bench, mmsi_video, revsi, vsi_debiased),
)
MAKERS: dict[str, Callable[..., Path]] = {maker.__name__: maker for maker in _MAKERS}
