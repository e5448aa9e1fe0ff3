#!/usr/bin/env bash
# IWSLT'14 German-English from a local copy, by fairseq's published recipe (transformer_iwslt_de_en): cross-entropy,
# label smoothing and a learned loss.
#
#   examples/translation/iwslt14.sh RAW_DIR [OUTPUT_DIR] [options of recipe.py ...]
#
# RAW_DIR holds {train,valid,test}.{de,en}; it is only read. The published recipe lower-cases, tokenises with Moses and
# uses 10,000 BPE merges; here raw text goes through a joint SentencePiece model of 10,000, so BLEU is on cased,
# detokenised text and not comparable with numbers on lower-cased tokens. Hours on a GPU, days on a CPU.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
exec "$here/run_corpus.sh" iwslt14 10000 "$@"
