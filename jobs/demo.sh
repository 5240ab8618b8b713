#!/usr/bin/env bash
# Calibrates the demo model on two ranks and says where the result is. Called by `make demo`.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly run=demo-run
readonly demo=tests/demo

launcher=(mpirun -n 2)
if mpirun --version 2>/dev/null | grep -q "Open MPI"; then
  # Two ranks on any machine: as root in a container, and with a single core.
  launcher=(mpirun --oversubscribe --bind-to none -n 2)
  export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
  # Containers often forbid the copy between processes that Open MPI tries first; it would complain, then go on.
  export OMPI_MCA_btl_vader_single_copy_mechanism=none OMPI_MCA_btl_sm_use_cma=0
fi
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
