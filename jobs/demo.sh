#!/usr/bin/env bash
# Calibrates the demo model on two ranks and says where the result is. Called by `make demo`.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly run=demo-run
readonly demo=tests/demo

source jobs/launcher.sh
calibrate=(build/winnow calibrate --model "$demo/model" --data "$demo/long.h5" --control "short=$demo/short.h5"
  --window 96 --sinks 4 --out "$run")

echo "A 12-layer demo model, trained to repeat facts from far back in its prompt, is calibrated on two ranks:"
echo
echo "  ${launcher[*]} ${calibrate[*]}"
echo
rm -rf "$run"
"${launcher[@]}" "${calibrate[@]}"
cat <<END

The result is $run/results.h5. In Python (.venv/bin/python has what it needs):

  import xarray
  ranking = xarray.open_dataset("$run/results.h5", group="ranking", engine="h5netcdf")
  print(ranking.mean_delta_nll.to_series().sort_values(ascending=False))

Repeating the command above resumes, or prints the table again. Your own model: README.md.
END
