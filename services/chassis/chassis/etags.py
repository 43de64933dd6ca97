"""Etags: the version of a row, as an opaque text."""

from chassis.errors import Aborted


def etag(version: int) -> str:
    """The etag of a version."""
    return f'"{version:x}"'


def require(expected: str, actual: str) -> None:
    """Refuses a change that was based on another state. An empty `expected` means that the caller does not care.

    Raises:
        Aborted: ETAG_MISMATCH.
    """
    if expected and expected != actual:
        raise Aborted(
            "ETAG_MISMATCH",
            "the object was changed since you read it; read it again and decide anew",
            metadata={"etag": actual},
            field_violations=[("etag", "is not the present one")],
        )
