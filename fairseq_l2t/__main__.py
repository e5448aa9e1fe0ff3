"""``python -m fairseq_l2t`` prints the folder to give to fairseq as ``--user-dir``."""

import os


def main() -> None:
    """Print the absolute folder of this package, and nothing else, so that a shell can use it."""
    print(os.path.dirname(os.path.abspath(__file__)))


if __name__ == "__main__":
    main()
