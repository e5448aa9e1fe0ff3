"""What inspection raises."""

__all__ = ["InspectionError"]


class InspectionError(ValueError):
    """Input that cannot be inspected; one line that names the file or option."""
