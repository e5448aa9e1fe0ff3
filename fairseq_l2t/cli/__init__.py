"""Console commands, one thin file each."""
