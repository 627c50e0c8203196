#!/usr/bin/env bash
# The whole story on a real pipeline: run it, see a step fail, fix the code, resume.
# Makes a virtual environment in .venv, and a copy of this folder in a separate git repository.
set -euo pipefail
cd "$(dirname "$0")/../.."
python="${PYTHON:-python3}"
folder="${1:-$(mktemp -d)/iris}"

echo "Making .venv here, with runnable-ci, scikit-learn, numpy and matplotlib: about 440 MB, a minute or two ..."
if ! [ -x .venv/bin/python ] && ! "$python" -m venv .venv; then
    rm -rf .venv # Debian's Python has no ensurepip of its own: virtualenv brings pip along, and needs no root
    "$python" -m pip install --quiet --user --break-system-packages virtualenv && "$python" -m virtualenv --quiet .venv
fi
.venv/bin/python -m pip install --quiet . -r examples/iris/requirements.txt
PATH="$PWD/.venv/bin:$PATH"

say() { printf '\n$ %s\n' "$*"; "$@"; }

mkdir -p "$folder"
cp examples/iris/iris.py examples/iris/runnable.toml examples/iris/requirements.txt "$folder"
cd "$folder"
git init --quiet
git add .
git -c user.name=demo -c user.email=demo@example.com commit --quiet --message "Iris pipeline"

# A mistake in the code of the second step.
say sed -i 's/logreg.fit(train_X, train_Y)/logreg.fit(train_X, train_y)/' iris.py
say runnable-ci run || true
# The fix. The first step is done and is not run again.
say sed -i 's/logreg.fit(train_X, train_y)/logreg.fit(train_X, train_Y)/' iris.py
say runnable-ci retry latest
say runnable-ci show latest
printf '\nThe run is in %s\n' "$folder/.runnable"
