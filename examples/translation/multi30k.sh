#!/usr/bin/env bash
# Multi30k German-English: a Transformer of 2+2 layers of 128 by cross-entropy, label smoothing and a learned loss.
#
#   examples/translation/multi30k.sh RAW_DIR [OUTPUT_DIR] [options of recipe.py ...]
#
# RAW_DIR holds {train,valid,test}.{de,en}; it is only read. OUTPUT_DIR is out/multi30k by default. For example
# `--seeds 1 2 3`. NOISE=0.3 misaligns that share of the training pairs; TRAIN_LIMIT=12000 uses the first pairs.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
exec "$here/run_corpus.sh" multi30k 4000 "$@"
