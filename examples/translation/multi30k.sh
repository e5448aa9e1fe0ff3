#!/usr/bin/env bash
# Multi30k German-English: a Transformer of 2+2 layers of 128 by cross-entropy, label smoothing and a learned loss.
#
#   examples/translation/multi30k.sh RAW_DIR [OUTPUT_DIR] [options of `python -m experiments recipe` ...]
#
# RAW_DIR holds {train,valid,test}.{de,en}; it is only read. OUTPUT_DIR is out/multi30k by default. An example of an
# option: `--seeds 1 2 3`. NOISE=0.3 misaligns that share of the training pairs; TRAIN_LIMIT=12000 uses the first pairs.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
if [ $# -lt 1 ] || [ "${1#-}" != "$1" ]; then
  echo "multi30k.sh: error: RAW_DIR missing, expected a folder with {train,valid,test}.{de,en}" >&2
  exit 2
fi
raw=$1 output=$root/out/multi30k
shift
if [ $# -gt 0 ] && [ "${1#-}" = "$1" ]; then
  output=$1
  shift
fi
python=${PYTHON:-$root/.venv/bin/python}
[ -x "$python" ] || { echo "multi30k.sh: error: $python: not there; run 'make install' first" >&2; exit 2; }
exec "$python" -m experiments recipe multi30k "$raw" --output-dir "$output" \
  --noise "${NOISE:-0}" --train-limit "${TRAIN_LIMIT:-0}" "$@"
