#!/usr/bin/env bash
# Everything that the tests need, and the tests. Arguments go to pytest: `@tests/pure.txt` runs the core's tests alone,
# which start no process and reach no network. With `--long` only the tests run that take hours by nature: 10,000 random
# edits (or JUDGE_EDITS) of random pipelines, each with a retry judged by a fresh run; each call to the system that a
# run, a retry and `gc` make, refused once by each of five errors; 5,000 damages (or DAMAGES) to the files of a store;
# 1,000 random pipelines (or RANDOM_RUNS) with matrices, loops and tries, broken and resumed; 1,000 times (or
# INDEX_ROUNDS) two writers of one index at once; 20 kills (or CHECKPOINT_KILLS) of a training with checkpoints, and 20
# (or JOB_KILLS) of the jobs of one; a kill before each change that a run, a retry, a publish and a pull make in a store;
# 20 times (or KILL_SHARES) ten kills of a run at random moments; all culprits that are planted for `reproduce --times`;
# 20 random pipelines (or ENGINE_RUNS) by each engine, 4 of them (or ENGINE_JOBS) as jobs; all commands on a second real
# registry, Pulp on PostgreSQL; and each test that is marked `long`. Without it, one in four of these is run (or one in
# LONG_TESTS, or `all`), by a seed that is printed with the names of the others (LONG_TESTS_SEED to repeat it), and the
# edits are 20, from a JUDGE_SEED on that the names of these tests show.
set -euo pipefail
cd "$(dirname "$0")/.."
python="${PYTHON:-python3}"
if [ "${1:-}" = --long ]; then
    shift
    export JUDGE_EDITS="${JUDGE_EDITS:-10000}" DAMAGES="${DAMAGES:-5000}" FAULTS=all SECOND_REGISTRY=pulp LONG_TESTS=all
    export RANDOM_RUNS="${RANDOM_RUNS:-1000}" INDEX_ROUNDS="${INDEX_ROUNDS:-1000}"
    export CHECKPOINT_KILLS="${CHECKPOINT_KILLS:-20}" JOB_KILLS="${JOB_KILLS:-20}" CULPRITS=all
    export ENGINE_RUNS="${ENGINE_RUNS:-20}" KILL_PLACES="${KILL_PLACES:-1}" KILL_SHARES="${KILL_SHARES:-20}"
    set -- tests/runs/test_real_registries.py tests/test_resume_equals_fresh.py tests/test_faults.py \
        tests/test_damaged_stores.py tests/engine/test_resumed_equals_unbroken.py \
        tests/runs/test_reuse_in_a_registry.py tests/test_checkpoints.py tests/github/test_training_over_jobs.py \
        tests/analysis/test_culprits.py tests/engine/test_all_engines.py tests/github/random_jobs.py \
        tests/test_leftovers.py tests/test_kill.py "$@"
    mapfile -t long < <(grep -rl "pytest\.mark\.long(\"" tests --include="test_*.py")
    set -- "$@" "${long[@]}"
else
    export LONG_TESTS="${LONG_TESTS:-4}" JUDGE_SEED="${JUDGE_SEED:-$RANDOM}"
fi

missing=()
[ -z "${SECOND_REGISTRY:-}" ] || ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || missing+=(postgresql)
for pair in skopeo:skopeo docker-registry:docker-registry git:git openssl:openssl curl:curl htpasswd:apache2-utils \
    shellcheck:shellcheck strace:strace make:make unshare:util-linux dash:dash podman:podman runc:runc \
    busybox:busybox-static chromium:chromium chromedriver:chromium-driver slurmctld:slurmctld slurmd:slurmd \
    srun:slurm-client munged:munge sshd:openssh-server ssh:openssh-client; do
    PATH="$PATH:/usr/sbin:/sbin" command -v "${pair%%:*}" >/dev/null || missing+=("${pair##*:}")
done
# GitHub's description of its API and the accessibility checker come from npm, once.
ls .cache/github-description/*/ghes-*.json .cache/axe-core/*.js >/dev/null 2>&1 || command -v npm >/dev/null || missing+=(npm)
"$python" -c "import ensurepip" 2>/dev/null || missing+=(python3-venv)
if [ ${#missing[@]} -gt 0 ]; then
    sudo=$([ "$(id -u)" = 0 ] || echo sudo)
    echo "tests/run.sh: installing with apt-get, which changes this system: ${missing[*]}"
    $sudo apt-get update -q && $sudo apt-get install -y -q "${missing[@]}"
fi

[ -x .venv-test/bin/python ] || "$python" -m venv .venv-test
echo "tests/run.sh: installing the program and what its tests need into .venv-test (about 1 GB, some minutes the first time)"
.venv-test/bin/python -m pip install --quiet --editable '.[dev]'
.venv-test/bin/python tests/github_description.py
.venv-test/bin/python tests/axe.py
exec .venv-test/bin/python -m pytest -n auto --dist worksteal --durations 40 "$@"
