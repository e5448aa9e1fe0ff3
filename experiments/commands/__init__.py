"""The commands of ``python -m experiments``, one file each: ``add_options(parser)`` and ``run(options)``."""
