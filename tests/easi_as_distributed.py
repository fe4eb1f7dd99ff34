"""The benchmarks of EASI's table and their kin, as `tests.benchmarks_as_distributed` has the others."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from tests.written_files import as_json, as_lines, encoded, images, parquet, picture, place

MMSI_TYPES = (
    *(f"Positional Relationship ({pair})" for pair in ("Cam.–Cam.", "Cam.–Obj.", "Cam.-Reg.")),
    *(f"Positional Relationship ({pair})" for pair in ("Obj.–Obj.", "Obj.–Reg.", "Reg.–Reg.")),
    *("Attribute (Meas.)", "Attribute (Appr.)", "Motion (Cam.)", "Motion (Obj.)", "MSR"),
)


def mmsi_bench(root: Path, videos: Sequence[Path] = ()) -> Path:
    """Twelve questions, one of each type, two MSR; ids 0 to 11, truth B. The last has three images, others two."""
    del videos
    rows = []
    for number, kind in enumerate((*MMSI_TYPES, "MSR")):
        count = 3 if number == 11 else 2
        rows.append({"id": number, "images": [picture(3 * number + i) for i in range(count)], "question_type": kind})
        rows[-1] |= {"question": f"Turned {number}? Options: A: left, B: right, C: up, D: down", "answer": "B"}
        rows[-1] |= {"thought": "It turns right.", "difficulty": "easy"}
    return parquet(root / "MMSI_Bench.parquet", rows, row_group_size=5)


def mindcube(root: Path, videos: Sequence[Path] = ()) -> Path:
    """Seven questions: among_g1_q0 and q1, around_g2_q0 and q1, rotation_g3_q0, translation_g4_q0 and q1; truth A."""
    del videos
    ids = ("among_g1_q0", "among_g1_q1", "around_g2_q0", "around_g2_q1", "rotation_g3_q0")
    rows = []
    for name in ("translation_g4_q0", "translation_g4_q1", *ids):
        setting, group, _ = name.split("_")
        views = [f"other_all_image/{setting}/{group}/{n}.jpg" for n in (1, 2)]
        images(root / "data", *views)
        rows.append({"id": name, "category": ["P-I", "self"], "type": "x", "images": views, "gt_answer": "A"})
        rows[-1]["question"] = "What is left of you? A. Sofa B. Lamp C. Door"
    path = root / "data/raw/MindCube_tinybench.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    return as_lines(path, rows)


VIEWSPATIAL_TYPES = (
    *("Camera perspective - Relative Direction", "Camera perspective - Object View Orientation"),
    *("Person perspective - Relative Direction", "Person perspective - Object View Orientation"),
    "Person perspective - Scene Simulation Relative Direction",
)


def viewspatial(root: Path, videos: Sequence[Path] = ()) -> Path:
    """Six questions, one of each type and a second of the first; ids 0 to 5, truth A. The last has two options."""
    del videos
    rows = []
    for number, kind in enumerate((*VIEWSPATIAL_TYPES, VIEWSPATIAL_TYPES[0])):
        scans = [f"scannetv2_val/scene0{number}/original_images/{n}.jpg" for n in range(2)]
        names = scans if number % 2 else [f"val2017/{number}.jpg"]
        images(root, *names)
        rows.append({"question_type": kind, "image_path": [f"ViewSpatial-Bench/{name}" for name in names]})
        rows[-1] |= {"question": f"Where is dog {number}?", "answer": "A. left"}
        rows[-1]["choices"] = "A. left\nB. back" if number == 5 else "A. left\nB. back\nC. front\nD. right"
    return as_json(root / "ViewSpatial-Bench.json", rows)


BLINK_TASKS = (
    *("Art_Style", "Counting", "Forensic_Detection", "Functional_Correspondence", "IQ_Test", "Jigsaw"),
    *("Multi-view_Reasoning", "Object_Localization", "Relative_Depth", "Relative_Reflectance"),
    *("Semantic_Correspondence", "Spatial_Relation", "Visual_Correspondence", "Visual_Similarity"),
)


def blink(root: Path, videos: Sequence[Path] = ()) -> Path:
    """Fifteen questions, ids val_{subtask}_1 and val_Jigsaw_2, truth A. Jigsaw has two images, the others one."""
    del videos
    path = root
    for shade, task in enumerate(BLINK_TASKS):
        rows = []
        for number in range(1, 3 if task == "Jigsaw" else 2):
            names = ["image_1", "image_2"] if task == "Jigsaw" else ["image_1"]
            shown = {name: {"bytes": picture(shade + i), "path": "x.png"} for i, name in enumerate(names)}
            rows.append({"idx": f"val_{task}_{number}", "sub_task": task, "question": "Which fits?"})
            rows[-1] |= {"image_1": None, "image_2": None, "image_3": None, "image_4": None} | shown
            rows[-1] |= {"choices": ["the first", "the second"], "answer": "(A)"}
            rows[-1]["prompt"] = "Which fits? Select from the following choices.\n(A) the first\n(B) the second"
        path = parquet(root / task / "val-00000-of-00001.parquet", rows)
    return path


DSR_ROWS = (
    # category, qid, options, truth
    ("height_higher", "K3PX09QA", ("cup", "hat"), "A"),
    ("height_higher", "K3PX09QA-1", ("hat", "cup"), "B"),
    ("height_higher", "K3PX09QA-flip", ("cup", "hat"), "A"),
    ("height_higher", "K3PX09QA-flip-1", ("hat", "cup"), "B"),
    ("location_above", "AAAA0001", ("yes", "no"), "A"),
    ("location_above", "AAAA0001-1", ("no", "yes"), "B"),
    ("orientation_viewpoint", "BBBB0001", ("front", "left", "back", "right"), "D"),
    ("multi_object_parallel", "CCCC0001", ("yes", "no"), "A"),
)


def threedsrbench(root: Path, videos: Sequence[Path] = ()) -> Path:
    """Eight rows, indices 0 to 7: four of one question, two of another, and two questions asked once."""
    del videos
    root.mkdir(parents=True, exist_ok=True)
    path = root / "3dsrbench_v1_vlmevalkit_circular.tsv"
    columns = ("index", "qid", "question", "A", "B", "C", "D", "answer", "category", "image", "image_url")
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerow(columns)
        for index, (category, qid, options, truth) in enumerate(DSR_ROWS):
            cells = [*options, *[""] * (4 - len(options))]
            question = 'Which "one"\nis it?' if index == 4 else "Which is it?"  # a cell with quotes and a line's end
            writer.writerow([index, qid, question, *cells, truth, category, encoded(index), "http://x/1.jpg"])
    return path


def embspatial(root: Path, videos: Sequence[Path] = ()) -> Path:
    """Seven questions, one of each relation and a second of the last; ids mp3d_0 …, truth C. The last two share an
    image."""
    del videos
    sources = ("mp3d", "ai2thor", "scannet")
    rows = []
    for number, relation in enumerate(("close", "far", "above", "under", "left", "right", "right")):
        source = sources[number % 3]
        rows.append({"data_source": source, "question_id": f"{source}_{number}", "question": "Which is it?"})
        rows[-1] |= {"relation": relation, "image": encoded(min(number, 5)), "answer": 2}
        rows[-1]["answer_options"] = ["bed", "door", "lamp", "rug"]
    return as_json(root / "embspatial_bench.json", rows)


OMNI_TASKS = {
    "Dynamic_Reasoning": ("Manipulation", "Motion_Analysis"),
    "Spatial_Interaction": ("Traffic_Analysis", "Localization", "Geospatial_Strategy"),
    "Complex_Logic": ("Pattern_Recognition", "Geometric_Reasoning"),
    "Perspective_Taking": ("Egocentric", "Allocentric", "Hypothetical"),
}


def omnispatial(root: Path, videos: Sequence[Path] = ()) -> Path:
    """Ten questions, one of each task, ids {kind}/{n}_1 with n from 0 in each kind; truth B."""
    del videos
    rows = []
    for kind, tasks in OMNI_TASKS.items():
        for number, task in enumerate(tasks):
            images(root, f"{kind}/{number}.png")
            rows.append({"id": f"{number}_1", "question": f"Is it {task}?", "options": ["yes", "no", "both"]})
            rows[-1] |= {"answer": 1, "task_type": kind, "sub_task_type": task}
    return as_json(root / "data.json", rows)


SITE_CATEGORIES = (
    *("counting & existence", "object localization & positioning", "3d information understanding"),
    *("multi-view & cross-image reasoning", "spatial relationship reasoning", "movement prediction & navigation"),
)


def site_bench(root: Path, videos: Sequence[Path] = ()) -> Path:
    """Five questions about images and two about videos, ids image/0 … and video/0 …, truth B.

    Questions image/0 to image/4 have two, three, four, four and four options, the videos' four and two; categories go
    round. image/3 has marks in its question, image/4 in its options.
    """
    rows = []
    for number, count in enumerate((2, 3, 4, 4, 4)):
        names = [f"VQA/{number}_{n}.jpg" for n in range(1 if number < 3 else count)]
        images(root, *names)
        options = ["two", "three", "four", "five"][:count]
        question = f"How many cups in {number}?"
        if number == 3:
            question, options = f"{question} {' and '.join(['<image>'] * 4)}", options
        if number == 4:
            options = ["<image>"] * 4
        rows.append({"question": question, "options": options, "category": SITE_CATEGORIES[number], "answer": "B"})
        rows[-1] |= {"dataset": "VQA", "visual": names}
    place(videos, root / "clips/0.mp4", root / "clips/1.mp4")
    asked = [
        {"question": "Where to?", "options": ["left", "right", "back", "front"][: 4 - 2 * n], "answer": "B"}
        | {"category": SITE_CATEGORIES[5 - 5 * n], "dataset": "V", "visual": [f"clips/{n}.mp4"]}
        for n in range(2)
    ]
    as_json(root / "video_test.json", asked)
    return as_json(root / "image_test.json", rows)


def mmsi_video(root: Path, videos: Sequence[Path] = ()) -> Path:
    """Six questions of three types, ids question_0000 …, truth C: of one clip of two frames, of two clips and of one
    clip and a reference image, in turn."""
    del videos
    rows = []
    for number in range(6):
        clips = [[f"v{number}_{clip}/{n}.jpg" for n in range(2)] for clip in range(2 if number % 3 == 1 else 1)]
        references = [f"r{number}.jpg"] if number % 3 == 2 else []
        images(root / "frames", *(name for clip in clips for name in clip))
        images(root / "ref_images", *references)
        rows.append(
            {
                "id": f"question_{number:04d}",
                "type": ("Planning", "Prediction", "(Cross-Video) Memoery Update")[number % 3],
            }
        )
        rows[-1] |= {"video_list": [{"path": f"v{number}.mp4"}], "frames_list": clips, "ref_images": references}
        rows[-1] |= {"system_prompt": "You look at clips.", "task_prompt": "Answer the question.\n"}
        marks = "<video> then " * len(clips) + "<image> " * len(references)
        rows[-1]["user_prompt"] = f"{marks}What is next?\nA. one\nB. two\nC. three\nD. four\n"
        rows[-1] |= {"format_prompt": "Give the letter.", "ground_truth": "C"}
    return as_json(root / "mmsivideo.json", rows)


REVSI_TYPES = (
    *("object_rel_direction_forward_easy", "object_rel_direction_backward_easy", "object_rel_direction_forward_hard"),
    *("object_rel_direction_backward_hard", "object_rel_distance_closest", "object_rel_distance_farthest"),
    *("route_planning", "object_counting_single", "object_counting_multiple", "object_abs_distance"),
    *("object_size_estimation", "room_size_estimation_single", "room_size_estimation_multiple"),
)


def revsi(root: Path, videos: Sequence[Path] = ()) -> Path:
    """Thirteen questions, one of each type, ids {folder}/0 …: seven choices (truth B), six numbers (truth 4)."""
    place(videos, root / "scene0001_00.mp4", root / "scene0002_00.mp4")
    rows = []
    for number, kind in enumerate(REVSI_TYPES):
        choice = number < 7
        rows.append({"id": number, "dataset": "scannet", "scene_id": f"scene000{1 + number % 2}_00", "num_frames": 32})
        rows[-1] |= {"question_type": kind, "question": f"Chairs {number}?", "ground_truth": "B" if choice else "4"}
        rows[-1]["options"] = ["A. left", "B. right", "C. back", "D. front"] if choice else None
    return parquet(root / "test-00000-of-00001.parquet", rows)
