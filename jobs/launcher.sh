# Sets `launcher` to mpirun for two ranks on any machine, to nothing where there is no mpirun. Sourced by the demos.
launcher=()
if command -v mpirun >/dev/null; then launcher=(mpirun -n 2); fi
if mpirun --version 2>/dev/null | grep -q "Open MPI"; then
  # As root in a container, and with a single core, too.
  launcher=(mpirun --oversubscribe --bind-to none -n 2)
  export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
  # Containers often forbid the copy between processes that Open MPI tries first; it would complain, then go on.
  export OMPI_MCA_btl_vader_single_copy_mechanism=none OMPI_MCA_btl_sm_use_cma=0
fi
