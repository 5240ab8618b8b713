#!/usr/bin/env bash
# From calibration to whole patterns on held-out data, with the demo model: measure, select by several rules, evaluate.
# Called by `make demo-evaluate`. Repeating it goes on where it stopped.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly out=demo-evaluate
readonly demo=tests/demo
readonly keep=3  # of 12 layers: a quarter

source jobs/launcher.sh
readonly window=(--window 96 --sinks 4)

say() { printf '\n== %s\n   %s\n\n' "$1" "${*:2}"; }

mkdir -p "$out"
calibrate=(build/winnow calibrate --model "$demo/model" --data "$demo/long.h5" "${window[@]}" --signals all
  --lazy-recent 96 --out "$out/calibration")
say "What each layer costs when it alone is windowed" "${launcher[*]} ${calibrate[*]}"
"${launcher[@]}" "${calibrate[@]}" >"$out/calibration.txt"

search=(build/winnow search --model "$demo/model" --data "$demo/long.h5" "${window[@]}" --method greedy-forward
  --keep "$keep" --objective exact-match --tail-rows 32
  --verify 16 --verify-examples 8 --out "$out/search")
say "Layers chosen together, step by step" "${launcher[*]} ${search[*]}"
"${launcher[@]}" "${search[@]}"

select_layers() {  # METHOD RUN_DIR
  local select=(build/winnow select "$2" --method "$1" --keep "$keep" --out "$out/$1.json")
  say "Layers to keep by $1" "${select[*]}"
  "${select[@]}" >/dev/null
  grep '"layers"' -A "$((keep + 1))" "$out/$1.json" | tr -d '\n ' | sed 's/,"n_layers.*//; s/^/   /'
  echo
}
select_layers light-transfer "$out/calibration"
select_layers nll "$out/calibration"
select_layers exact-match "$out/calibration"
select_layers greedy-forward "$out/search"

evaluate=(build/winnow evaluate --model "$demo/model" --data "$demo/test.h5" "${window[@]}" --out "$out/evaluation"
  --pattern full --pattern windowed --pattern periodic:2@0 --pattern periodic:4@0
  --pattern "$out/light-transfer.json" --pattern "$out/nll.json" --pattern "$out/exact-match.json"
  --pattern "$out/greedy-forward.json"
  --baseline periodic:4@0 --generate 26)
say "All of them on examples that no rule has seen" "${launcher[*]} ${evaluate[*]}"
"${launcher[@]}" "${evaluate[@]}"
