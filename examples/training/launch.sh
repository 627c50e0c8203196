# Stands where `torchrun --nproc-per-node N SCRIPT …` does on a machine that has it.
processes=$1
shift
for rank in $(seq 0 $((processes - 1))); do
  RANK=$rank WORLD_SIZE=$processes python "$@"
done
