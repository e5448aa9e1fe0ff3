"""The error that inspection raises."""

__all__ = ["InspectionError"]


class InspectionError(ValueError):
    """Invalid user input; the message is one line that names the file or option."""
