"""How kernels are compiled: once per machine, with their types written down.

Importing a module of kernels compiles them, or loads them from numba's cache: beside the module, else in the user's
cache folder, else nowhere. So nothing imports such a module when `datakit` is imported, only the functions that need
one, and a parent that imports it before it forks spares its children the work.

The cache knows the file a kernel stands in and no other: a kernel calls nothing from, and takes no constant from,
other files.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numba
import numpy as np
from numpy.typing import DTypeLike

#: Of functions that are only called by kernels of the same file.
helper = numba.njit(error_model="numpy", nogil=True)


def kernel(*signatures: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Compile a function for these argument types and no others; it releases the GIL.

    Floating point stays as it is written (no fast-math), so that results are the same whatever the vector width.
    """

    def compile_it(function: Callable[..., Any]) -> Callable[..., Any]:
        options: Any = {"error_model": "numpy", "nogil": True}
        try:
            numba.njit(cache=True)(function)
        except RuntimeError:  # no folder for the cache can be written, as on some read-only installs
            return numba.njit(list(signatures), **options)(function)
        return numba.njit(list(signatures), cache=True, **options)(function)

    return compile_it


def array(dtype: DTypeLike, ndim: int, layout: Literal["C", "A"] = "C") -> Any:
    """Name the type of an array that a kernel only reads; layout "A" takes any strides."""
    kind: Any = numba.from_dtype(np.dtype(dtype))
    return numba.types.Array(kind, ndim, layout, readonly=True)
