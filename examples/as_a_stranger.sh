#!/usr/bin/env bash
# Methods of one's own, away from the clone: one file and one test each, copied to a new folder, tested and used there.
# usage: examples/as_a_stranger.sh [FOLDER]     PYTHON=python says which Python has veridical
set -euo pipefail
examples=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
folder=${1:-$(mktemp -d)}
python=${PYTHON:-python}
cp "$examples"/my_*.py "$examples"/test_my_*.py "$folder"
cd "$folder"
"$python" -m pytest -q -p no:cacheprovider .
"$python" -m veridical build --construction my_construction.py:blind --limit 2 --device cpu --out pairs
echo "what a stranger brought is in $folder"
