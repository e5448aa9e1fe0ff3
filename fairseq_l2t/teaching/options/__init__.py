"""Options of teaching, each declared once: parser, ranges, help, presets, YAML files and comparison follow from it."""
