"""Batch streams: which examples step t sees, as a function of key and counter alone.

`sample(…, stream=…)` takes a stream or its name; the default is the one that the kernel asks for,
mostly "reshuffled". N examples in batches of n make K = ⌈N/n⌉ batches, which differ by one example
at most. What kernels and estimators ask of a stream is its `law`. One of your own: `Stream`, and
`sgmcmc/streams/README.md`.
"""

from sgmcmc.streams._streams import (
    Rows,
    Stream,
    batch_width,
    check_batch_size,
    cyclic,
    from_name,
    full,
    gather,
    num_batches,
    order_at,
    require_reversible,
    reshuffled,
    rows_at,
    symmetric,
    with_replacement,
)

__all__ = [
    "Rows",
    "Stream",
    "batch_width",
    "check_batch_size",
    "cyclic",
    "from_name",
    "full",
    "gather",
    "num_batches",
    "order_at",
    "require_reversible",
    "reshuffled",
    "rows_at",
    "symmetric",
    "with_replacement",
]
