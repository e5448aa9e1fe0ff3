#!/usr/bin/env bash
# Shared by multi30k.sh and iwslt14.sh: prepare a corpus, then run the recipe of that name.
#
#   run_corpus.sh PRESET VOCABULARY RAW_DIR [OUTPUT_DIR] [options of recipe.py ...]
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
preset=$1 vocabulary=$2
shift 2
if [ $# -lt 1 ] || [ "${1#-}" != "$1" ]; then
  echo "$preset.sh: error: RAW_DIR missing, expected a folder with {train,valid,test}.{de,en}" >&2
  exit 2
fi
raw=$1 output=$root/out/$preset
shift
if [ $# -gt 0 ] && [ "${1#-}" = "$1" ]; then
  output=$1
  shift
fi
python=${PYTHON:-$root/.venv/bin/python}
[ -x "$python" ] || { echo "$preset.sh: error: $python: not there; run 'make install' first" >&2; exit 2; }
"$python" "$here/prepare.py" "$raw" --output-dir "$output/data" --vocabulary "$vocabulary" \
  --noise "${NOISE:-0}" --train-limit "${TRAIN_LIMIT:-0}"
exec "$python" "$here/recipe.py" "$output/data/bin" --output-dir "$output" --preset "$preset" "$@"
