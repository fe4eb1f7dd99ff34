#!/usr/bin/env bash
# Data from the model's own rollouts: what it answers rightly at times is imitated, and then trained on with GRPO.
#
#   bash experiments/own_rollouts.sh OUT [OVERRIDE …]     # such as model=qwen7b dataset=jsonl dataset.root=DIR cluster=fsdp
#
# The overrides are those of every step. The same line again goes on where it was stopped: each step has a folder in OUT,
# and one that has ended is left out.
set -euo pipefail
OUT=$1
RUN=$(cd "$(dirname "$0")/.." && pwd)/run.py
shift

step() { # its folder in OUT, then the overrides
    local folder=$OUT/$1
    shift
    if [ -f "$folder/summary.json" ]; then return; fi
    python "$RUN" hydra.run.dir="$folder" ckpt_path=last "$@"
}

# 1. eight completions of each training question, with their rewards
step generated "$@" stage=generate
# 2. supervised training on the best right completion of each question that is right sometimes, but not always
step sft "$@" stage=sft stage.targets=generated dataset.generated="$OUT/generated/generated.jsonl" dataset.pass_rate=[0.1,0.9]
# 3. pass rates of the model that this gives
step again "$@" stage=generate model.name_or_path="$OUT/sft/model"
# 4. GRPO on the questions that it gets right sometimes, which are those that teach
step grpo "$@" stage=train model.name_or_path="$OUT/sft/model" \
    dataset.generated="$OUT/again/generated.jsonl" dataset.pass_rate=[0.1,0.9]
