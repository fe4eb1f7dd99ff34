#!/usr/bin/env bash
# What only a GPU can tell, in about half an hour: bash tests/gpu.sh [--dry] [FOLDER]
#
# Writes FOLDER/PART.json and FOLDER/PART.log as it goes (FOLDER: gpu-results). A part that fails does not stop the rest;
# one that has its JSON is passed over, so that the command can be given again. --dry runs the same code at tiny sizes on
# the CPU. Ends with a summary, and with 1 if a part has failed.
set -u
cd "$(dirname "$0")/.." || exit 2
dry=()
if [ "${1:-}" = --dry ]; then dry=(--dry); shift; fi
out=$(realpath -m "${1:-gpu-results}")
mkdir -p "$out" || exit 2
python=${PYTHON:-python}

part() { # NAME SECONDS COMMAND…: which is to write $out/NAME.json
    local name=$1 seconds=$2 status
    shift 2
    if [ -s "$out/$name.json" ]; then
        echo "$name: done before"
        return
    fi
    echo "$name …"
    timeout "$seconds" "$@" >"$out/$name.log" 2>&1
    status=$?
    if [ $status -ne 0 ] || [ ! -s "$out/$name.json" ]; then
        [ ! -e "$out/$name.json" ] || mv "$out/$name.json" "$out/$name.failed"
        failed+=("$name (exit $status, see $out/$name.log)")
        echo "$name: FAILED"
    fi
}

run_tests() { # the tests that need a device; here on its junit file, there on its metrics
    "$python" -m pytest -q -n 0 tests/cuda --junitxml="$out/tests.xml" &&
        "$python" -c 'import json, sys, time, xml.etree.ElementTree as E
suite = E.parse(sys.argv[1]).getroot().find("testsuite")
metrics = {key: int(suite.get(key)) for key in ("tests", "failures", "errors", "skipped")}
told = {"part": "tests", "dry": bool(sys.argv[3:]), "date": time.strftime("%Y-%m-%d"), "metrics": metrics}
json.dump(told | {"seconds": float(suite.get("time"))}, open(sys.argv[2], "w"))' \
            "$out/tests.xml" "$out/tests.json" "${dry[@]}"
}

resume() { # one process of fsdp trains, stops at a checkpoint, and goes on from it
    local folder=$out/resumed started=$SECONDS kind=gpu
    [ ${#dry[@]} -eq 0 ] || kind=cpu
    local words=(cluster.strategy=fsdp "cluster.accelerator=$kind" logger=none dataset.train_scenes=4 dataset.heldout_scenes=2
        dataset.questions_per_scene=4 dataset.workers=1 objective.group_size=2 objective.max_completion_length=24 reward.length=null
        stage.evaluate_before=false stage.evaluate_after=false trainer.checkpoint_every_n_steps=1 "hydra.run.dir=$folder"
        "dataset.root=$out/rooms")
    rm -rf "$folder"
    "$python" run.py "${words[@]}" trainer.max_steps=1 &&
        "$python" run.py "${words[@]}" trainer.max_steps=2 ckpt_path=last &&
        printf '{"part": "resume", "dry": %s, "date": "%s", "seconds": %d, "metrics": {"steps": 2}}\n' \
            "$([ ${#dry[@]} -eq 0 ] && echo false || echo true)" "$(date +%F)" $((SECONDS - started)) >"$out/resume.json"
}

whole_step() { # of the 3B beside the released algorithm; dry, its options alone: the CPU has tests.speed.step
    if [ ${#dry[@]} -ne 0 ]; then "$python" -m tests.speed.gpu --help && echo '{"rows": []}' >"$out/step.json"; return; fi
    "$python" -m tests.speed.gpu --questions 1 4 8 --json "$out/step.json"
}

trl_step() { # TRL's step of the 3B, by vLLM where that is installed; without TRL, that it is not
    if [ ${#dry[@]} -ne 0 ]; then "$python" -m tests.speed.gpu --help && echo '{"rows": []}' >"$out/trl.json"; return; fi
    if "$python" -c 'import trl'; then
        "$python" -m tests.speed.gpu --systems trl --questions 1 4 8 --json "$out/trl.json"
    else
        echo '{"rows": []}' >"$out/trl.json"
    fi
}

failed=()
export -f run_tests resume whole_step trl_step
export python out
for name in versions flex decode drift; do
    part $name 600 "$python" -m tests.card $name "$out/$name.json" "${dry[@]}"
done
words="dry=(${dry[*]:-})"
part tests 900 bash -c "$words; run_tests"
part resume 600 bash -c "$words; resume"
part step 900 bash -c "$words; whole_step"
part trl 900 bash -c "$words; trl_step"
part large 600 "$python" -m tests.card large "$out/large.json" "${dry[@]}"

"$python" -m tests.card --page "$out" >"$out/page.md" || failed+=("page")
echo "results in $out; for the docs: cp $out/page.md docs/gpu.md"
if [ ${#failed[@]} -ne 0 ]; then
    printf 'FAILED: %s\n' "${failed[@]}"
    exit 1
fi
