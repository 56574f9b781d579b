"""How kernels are compiled: once per machine, with their types written down.

Importing a module of kernels compiles them, or loads them from numba's cache: beside the module, else in the user's
cache folder, else nowhere. So nothing imports such a module when `datakit` is imported, only the functions that need
one, and a parent that imports it before it forks spares its children the work.

The cache knows the file a kernel stands in and no other: a kernel calls nothing from, and takes no constant from,
other files; but for `prefetch`, which changes no result.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numba
import numpy as np
from llvmlite import ir
from numba.extending import intrinsic
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


def _prefetch(_typing: Any, items: Any, index: Any) -> Any:
    """Ask for the cache line of an item of a contiguous array, counted flat, and go on: it is there when it is read.

    A kernel that reads here and there waits for memory most of its time; asked for some steps ahead, many lines come at
    once. An index beyond the array does no harm.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        line = builder.bitcast(builder.gep(data, [args[1]]), ir.IntType(8).as_pointer())
        number = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [line.type, number, number, number])
        ask = builder.module.declare_intrinsic("llvm.prefetch", [line.type], kind)
        # To read, to keep in every cache, data.
        builder.call(ask, [line, number(0), number(3), number(1)])
        return context.get_dummy_value()

    return numba.types.void(items, index), generate


#: `prefetch(items, index)`, for kernels only.
prefetch: Any = intrinsic(_prefetch)
