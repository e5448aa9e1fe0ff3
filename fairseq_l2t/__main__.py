"""``python -m fairseq_l2t`` prints the folder to give to fairseq as ``--user-dir``."""

import argparse
import os

from fairseq_l2t import __version__


def main() -> None:
    """Print the absolute folder of this package, and nothing else, so that a shell can use it."""
    parser = argparse.ArgumentParser(prog="python -m fairseq_l2t", description=__doc__)
    parser.add_argument("--version", action="version", version=f"fairseq_l2t {__version__}")
    parser.parse_args()
    print(os.path.dirname(os.path.abspath(__file__)))


if __name__ == "__main__":
    main()
