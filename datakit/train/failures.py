"""What can go wrong in training itself."""

from datakit.errors import DatakitError


class NonFiniteError(DatakitError):
    """A loss or a gradient is NaN or infinite; `where` names the step and the clips of its batch."""
