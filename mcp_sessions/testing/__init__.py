"""The kit that a storage backend is tested with."""

from pkgutil import iter_modules

import pytest

# Before they are imported: so that a failing assert in them says what it saw.
pytest.register_assert_rewrite(*(f"{__name__}.{module.name}" for module in iter_modules(__path__)))

from .kit import StorageKit  # noqa: E402 - see above

__all__ = ["StorageKit"]
