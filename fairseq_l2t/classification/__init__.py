"""Image classifiers as students: networks, data, losses and runs. fairseq is not needed."""
