"""Batch streams: which examples step t sees, as a function of key and counter alone."""

from sgmcmc.streams._streams import (
    Rows,
    Stream,
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
