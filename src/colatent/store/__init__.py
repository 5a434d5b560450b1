"""Where and how things lie on disk.

What a notebook needs is here; it is loaded when it is first used:

    >>> from colatent.store import group_names, read_group, read_tensors
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from colatent.store.stores import check_store, group_names, read_attrs, read_group, read_tensors

__all__ = ["check_store", "group_names", "read_attrs", "read_group", "read_tensors"]


def __getattr__(name: str) -> Any:
    # Not imported above: whoever needs a path only does not wait for zarr.
    if name in __all__:
        from colatent.store import stores

        return getattr(stores, name)
    raise AttributeError(f"module 'colatent.store' has no attribute {name!r}")
