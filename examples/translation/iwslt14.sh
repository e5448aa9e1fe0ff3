#!/usr/bin/env bash
# IWSLT'14 German-English from a local copy, by fairseq's published recipe (transformer_iwslt_de_en): cross-entropy,
# label smoothing and a learned loss.
#
#   examples/translation/iwslt14.sh RAW_DIR [OUTPUT_DIR] [options of `python -m experiments recipe` ...]
#
# RAW_DIR holds {train,valid,test}.{de,en}; it is only read. OUTPUT_DIR is out/iwslt14 by default. The published recipe
# lower-cases, tokenises with Moses and uses 10,000 BPE merges; here raw text goes through a joint SentencePiece model of
# 10,000 pieces, so BLEU is on cased, detokenised text and not comparable with numbers on lower-cased tokens. Hours on a
# GPU, days on a CPU.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
if [ $# -lt 1 ] || [ "${1#-}" != "$1" ]; then
  echo "iwslt14.sh: error: RAW_DIR missing, expected a folder with {train,valid,test}.{de,en}" >&2
  exit 2
fi
raw=$1 output=$root/out/iwslt14
shift
if [ $# -gt 0 ] && [ "${1#-}" = "$1" ]; then
  output=$1
  shift
fi
python=${PYTHON:-$root/.venv/bin/python}
[ -x "$python" ] || { echo "iwslt14.sh: error: $python: not there; run 'make install' first" >&2; exit 2; }
exec "$python" -m experiments recipe iwslt14 "$raw" --output-dir "$output" \
  --noise "${NOISE:-0}" --train-limit "${TRAIN_LIMIT:-0}" "$@"
