"""A run folder that is used again: who may be in it, what is gone on with, refused, removed, and never mistaken."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from spacer.config.settings import Settings
from spacer.config.settings.stages import STAGES
from spacer.errors import UserError
from spacer.evaluation.conditions import Trained, digest_of, heldout_conditions, renew
from spacer.evaluation.kept import bare, kept_rows, key_lines, key_of, keys_of
from spacer.files import write_rows
from spacer.models.digests import state_digest, weights_digest
from spacer.sweeping import claim
from spacer.sweeping.claim import FILE, Claim, await_claim, claimed
from spacer.sweeping.record import Record, Status, plain, read, recorded, write
from tests.unit.configs import load
from tests.unit.data.making import sample

HOLD = """
import sys, time
from pathlib import Path
from spacer.sweeping.claim import claimed
with claimed(Path(sys.argv[1]), lambda: None):
    print("has it", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    folder = tmp_path / "run"
    folder.mkdir()
    return replace(load(), output_dir=str(folder))


@pytest.fixture
def folder(settings: Settings) -> Path:
    return Path(settings.output_dir)


def nothing() -> None:
    """What there is to settle in an empty folder."""


# who is in it


def test_a_folder_in_use_is_refused_with_the_process_until_that_is_killed(folder: Path) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None and holder.stdout.readline() == "has it\n"
        told = rf"in use by process {holder.pid} on .* since .*hydra\.run\.dir="
        with pytest.raises(UserError, match=told), claimed(folder, nothing):
            pass
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    assert json.loads((folder / FILE).read_text())["pid"] == holder.pid  # it had no time to take its name away
    with claimed(folder, nothing):
        assert json.loads((folder / FILE).read_text())["pid"] == os.getpid()
    assert (folder / FILE).read_text() == ""


def left(folder: Path, seconds_ago: float = 0.0, **changes: str | int) -> None:
    """A claim that a process has left, of this machine unless `changes` say otherwise."""
    mine = asdict(Claim(socket.gethostname(), claim._boot(), 2**22 + 1, "2026-11-28 12:00:00"))
    (folder / FILE).write_text(json.dumps(mine | changes))
    then = time.time() - seconds_ago
    os.utime(folder / FILE, (then, then))


@pytest.mark.parametrize(
    ("seconds_ago", "changes"),
    [
        (0, {}),  # killed
        (0, {"pid": 1}),  # its number is another process's now
        (0, {"boot": "before the machine was started again", "pid": 1}),
        (0, {"host": "container", "pid": 1}),  # under the same kernel, whose locks hold for all
        (2 * claim.STALE_S, {"host": "other", "boot": "there"}),
    ],
)
def test_what_a_dead_process_left_hinders_nobody(seconds_ago: float, changes: dict, folder: Path) -> None:
    left(folder, seconds_ago, **changes)
    with claimed(folder, nothing):
        pass


def test_another_machines_claim_holds_while_it_is_renewed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left(folder, 20, host="other", boot="there", pid=7, job="12")
    for _ in range(2):  # to ask is no sign of life
        with (
            pytest.raises(UserError, match=r"process 7 on other since .* which was alive 2\d s ago"),
            claimed(folder, nothing),
        ):
            pass
    monkeypatch.setenv("SLURM_PROCID", "0")
    monkeypatch.setenv("SLURM_JOB_ID", "12")  # the same job, which SLURM has started again on this machine
    with claimed(folder, nothing):
        pass


def test_where_files_cannot_be_locked_the_process_is_looked_for(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(*_: object) -> None:
        raise OSError(claim.errno.ENOLCK, "No locks available")

    monkeypatch.setattr(claim.fcntl, "lockf", refuses)
    left(folder, pid=os.getppid())
    with pytest.raises(UserError, match=f"process {os.getppid()} "), claimed(folder, nothing):
        pass
    left(folder)
    with claimed(folder, nothing):
        pass


def test_other_processes_of_a_run_wait_for_the_first(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await_claim(folder)  # nobody has started several
    for name, value in {"JOB_ID": "3", "STEP_ID": "0", "RESTART_COUNT": "1", "NTASKS": "2", "PROCID": "1"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    monkeypatch.setattr(claim, "PATIENCE_S", 0.3)
    with pytest.raises(UserError, match="first process has not claimed"):
        await_claim(folder)
    left(folder, launch="SLURM_JOB_ID=3 SLURM_STEP_ID=0 SLURM_RESTART_COUNT=0", pid=os.getpid())  # an earlier start
    with pytest.raises(UserError, match="first process has not claimed"):
        await_claim(folder)
    left(folder, launch="SLURM_JOB_ID=3 SLURM_STEP_ID=0 SLURM_RESTART_COUNT=1", pid=os.getpid())
    await_claim(folder)


# what is in it


def run_was(settings: Settings, status: Status, **changes: object) -> None:
    """Leaves what a run has written, and files of the user's beside it."""
    folder = Path(settings.output_dir)
    write(folder, Record(status, plain(replace(settings, **changes))))  # type: ignore[arg-type]
    names = ("predictions/after.jsonl", "checkpoints/last.ckpt", "history.jsonl", "model/config.json", "wandb/a/b.json")
    shards = "checkpoints/last.parts-0/shard.safetensors"
    for name in (*names, shards, "notes.txt", "checkpoints/best.pt", "vsi_bench/scores.json"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("{}")


def of_stage(settings: Settings, name: str) -> Settings:
    return replace(settings, stage=STAGES[name]())


def test_a_finished_run_is_not_run_over(settings: Settings, folder: Path) -> None:
    run_was(settings, Status.done)
    before = (folder / "run.json").read_text()
    for again in (settings, replace(settings, seed=7), of_stage(settings, "evaluate"), of_stage(settings, "score")):
        with pytest.raises(UserError, match=r"holds a .*run of stage=train.*hydra\.run\.dir=.*overwrite=true"):
            recorded(again, lambda _: 1.0)
    assert (folder / "run.json").read_text() == before
    assert recorded(replace(settings, ckpt_path="last"), lambda _: 1.0) == 1.0  # to train longer, say


def test_one_that_has_not_finished_goes_on_with_its_own_settings(settings: Settings, folder: Path) -> None:
    run_was(settings, Status.killed)
    with pytest.raises(UserError, match=r"other settings .*\(seed: 42 then, 7 now\)"):
        recorded(replace(settings, seed=7), lambda _: 1.0)
    with pytest.raises(UserError, match=r"has not finished.*step 0: go on .*ckpt_path=last.*overwrite=true"):
        recorded(settings, lambda _: 1.0)
    for checkpoint in ("last", str(folder / "checkpoints/../checkpoints/last.ckpt")):
        run_was(settings, Status.killed)
        assert recorded(replace(settings, ckpt_path=checkpoint), lambda _: 1.0) == 1.0


def test_one_without_a_checkpoint_begins_again(settings: Settings, folder: Path) -> None:
    run_was(settings, Status.killed)
    (folder / "checkpoints/last.ckpt").unlink()
    assert recorded(settings, lambda _: 1.0) == 1.0


def test_what_failed_before_it_came_to_anything_is_no_hindrance(settings: Settings, folder: Path) -> None:
    write(folder, Record(Status.failed, plain(settings)))
    assert recorded(replace(settings, seed=7), lambda _: 1.0) == 1.0


def test_an_evaluation_goes_on_whatever_it_is_asked(settings: Settings) -> None:
    asks = of_stage(settings, "evaluate")
    run_was(asks, Status.done)
    limited = replace(asks, evaluation=replace(asks.evaluation, limit=5))
    assert recorded(limited, lambda _: 1.0) == 1.0  # its answers say whether they are of the same conditions


def test_a_damaged_record_is_told(settings: Settings, folder: Path) -> None:
    (folder / "run.json").write_text('{"status": "do')
    with pytest.raises(UserError, match=r"run\.json is damaged"):
        recorded(settings, lambda _: 1.0)


def test_overwriting_removes_what_the_run_wrote_and_nothing_else(settings: Settings, folder: Path) -> None:
    run_was(settings, Status.done)
    anew = replace(settings, overwrite=True, seed=7)
    found: list[str] = []

    def look(_: Settings) -> float:
        found.extend(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
        return 1.0

    recorded(anew, look)
    assert sorted(found) == [".claim", "checkpoints/best.pt", "notes.txt", "run.json"]
    record = read(folder)
    assert record is not None and (record.status, record.settings["seed"]) == (Status.done, 7)


def test_a_folder_that_holds_no_run_is_left_alone(settings: Settings, folder: Path) -> None:
    run_was(settings, Status.done)
    (folder / "run.json").unlink()
    recorded(replace(settings, overwrite=True), lambda _: 1.0)
    assert (folder / "model/config.json").exists()


def test_what_is_to_be_read_is_not_overwritten(settings: Settings, folder: Path) -> None:
    run_was(settings, Status.done)
    model = replace(settings.model, name_or_path=str(folder / "model"))
    reads = [{"model": model}, {"runs": (str(folder),)}, {"ckpt_path": str(folder / "checkpoints/last.ckpt")}]
    for what in reads:
        with pytest.raises(UserError, match=r"overwrite=true would remove .*, which this run reads"):
            recorded(replace(settings, overwrite=True, **what), lambda _: 1.0)
    assert (folder / "model/config.json").exists()


def test_a_job_that_slurm_starts_again_overwrites_nothing(
    settings: Settings, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_was(settings, Status.killed)
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    recorded(replace(settings, overwrite=True), lambda _: 1.0)
    assert (folder / "checkpoints/last.ckpt").exists()


# whose answers they are


def test_a_digest_is_of_every_byte(tmp_path: Path) -> None:
    """Adapters and frozen embeddings leave both ends of a file as they were."""
    tensors = {name: torch.zeros(1 << 20) for name in "abc"}
    digests = set()
    for number in range(3):
        tensors["b"][12345] = number
        place = tmp_path / str(number)
        place.mkdir()
        save_file(tensors, place / "model.safetensors")
        digests |= {weights_digest(place), state_digest(tensors)}
    assert len(digests) == 6


def test_a_file_that_changes_in_place_is_read_again(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"1" * 100)
    first = weights_digest(tmp_path)
    file.write_bytes(b"2" * 100)
    os.utime(file, ns=(1, 1))
    assert weights_digest(tmp_path) != first


def test_state_is_told_apart_by_name_type_and_shape() -> None:
    one = torch.arange(4, dtype=torch.bfloat16)
    states = [{"a": one}, {"b": one}, {"a": one.reshape(2, 2)}, {"a": one.view(torch.int16)}, {"a": one[:3]}]
    assert len({state_digest(state) for state in states}) == 5
    assert state_digest({"a": one.clone(), "b": one}) == state_digest({"b": one, "a": one})
    assert state_digest({"a": torch.tensor(1.0)}) != state_digest({"a": torch.tensor(2.0)})  # a scalar


def test_held_out_answers_are_of_one_model_one_reward_and_one_way_to_ask(settings: Settings) -> None:
    def digest(settings: Settings = settings, trained: Trained | None = None) -> str:
        return digest_of(heldout_conditions(settings, {"rows": "blocks"}, trained))

    dataset, reward, asked = settings.dataset, settings.reward, settings.evaluation
    prompts = {**dataset.prompts, "plain": "$question!"}  # type: ignore[union-attr]
    others = [
        digest(),
        digest(trained=Trained("a", 3)),
        digest(trained=Trained("a", 6)),
        digest(trained=Trained("b", 6)),
        digest(replace(settings, seed=1)),
        digest(replace(settings, reward=replace(reward, strict=not reward.strict))),
        digest(replace(settings, evaluation=replace(asked, max_new_tokens=9))),
        digest(replace(settings, evaluation=replace(asked, temperature=0.5))),
        digest(replace(settings, dataset=replace(dataset, prompts=prompts))),  # type: ignore[arg-type]
    ]
    assert len(set(others)) == len(others)
    same = replace(settings, output_dir="/elsewhere", evaluation=replace(asked, batch_size=1, limit=3))
    assert digest(same) == others[0]


def test_rows_of_other_conditions_or_another_question_are_no_answers(tmp_path: Path) -> None:
    media = tmp_path / "a.mp4"
    media.write_bytes(b"123")
    items = [sample("1", path=media), sample("2", path=media), sample("3", path=media)]
    keys = {item.id: key_of("now", item) for item in items}
    changed = replace(items[1], problem="Asked otherwise?")
    rows = [
        {"id": "1", "key": keys["1"]},
        {"id": "2", "key": key_of("now", changed)},
        {"id": "3", "key": key_of("then", items[2])},
        {"id": "gone", "key": "then-0"},
        {"id": "not asked now", "key": "now-0"},
        {"id": "3", "completion": "of no key", "key": ""},
    ]
    path, part = tmp_path / "after.jsonl", tmp_path / "after.0.part.jsonl"
    write_rows(part, map(bare, rows))
    keys_of(part).write_text("".join(key_lines(rows[:-1])) + "torn")
    assert list(kept_rows(path, "now", keys)) == ["1", "not asked now"]
    assert kept_rows(path, "then", {}).keys() == {"3", "gone"}
    write_rows(part, [{"id": "1", "completion": "another"}])  # whose keys are of other rows
    assert not kept_rows(path, "now", keys)
    media.write_bytes(b"1234")  # the file that is there now was not asked about
    assert key_of("now", items[0]) != keys["1"]
    assert key_of("now", replace(items[0], solution="B")) != key_of("now", items[0])


def test_other_conditions_are_taken_over_with_a_word(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "after.conditions.json"
    renew(path, {"model": {"trained_steps": 3}})
    renew(path, {"model": {"trained_steps": 3}})
    assert not caplog.records
    renew(path, {"model": {"trained_steps": 6}})
    assert "model.trained_steps: 3 then, 6 now" in caplog.text
    assert json.loads(path.read_text()) == {"model": {"trained_steps": 6}}
