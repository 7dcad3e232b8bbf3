"""transposed.v1: transposed convolutions, the baseline with checkerboards."""
