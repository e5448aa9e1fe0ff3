from tests.storage.conftest import tiny_disk

__all__ = ["tiny_disk"]
