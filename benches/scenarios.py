"""The bench's workloads by name, in the order in which they are run: those that take minutes last."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import growth
import jobs
import many
import owned
import restoring
import saving
import sharding
import slicing
import texts
from measure import SAFETENSORS
from stage import Stage
from workloads import DECODER, GIB, MEDIUM, ONE_LARGE, SMALL


@dataclass(frozen=True)
class Scenario:
    """One workload and what is done with it."""

    name: str
    run: Callable[[Stage], object]
    quick: bool = False
    """Part of the quick bench, too."""
    size: int = GIB
    """Bytes of the tensors that it needs files and memory for."""


SCENARIOS: tuple[Scenario, ...] = (
    Scenario("64x16MiB restore", lambda s: restoring.warm_restore(s, MEDIUM, detailed=not s.quick), quick=True),
    Scenario("64x16MiB save", lambda s: saving.page_cache_save(s, MEDIUM, detailed=not s.quick), quick=True),
    Scenario("64x16MiB new memory", partial(owned.owned_restore, workload=MEDIUM)),
    Scenario("64x16MiB asynchronous save", jobs.asynchronous_save),
    Scenario("10 of 1MiB in all", saving.small_durable_save, quick=True),
    Scenario("20k x 4KiB restore", partial(restoring.warm_restore, workload=SMALL), quick=True),
    Scenario("20k x 4KiB save", partial(saving.page_cache_save, workload=SMALL), quick=True),
    Scenario("1M x 64B index", many.index_of_many),
    Scenario("strings", texts.strings),
    Scenario("4KiB of 1GiB", slicing.one_row, quick=True),
    Scenario("an eighth of 64x16MiB", slicing.eighths),
    Scenario("shards save", sharding.sharded_save, quick=True),
    Scenario("shards restore", sharding.sharded_restore),
    Scenario("8 slices of rows", partial(sharding.reshard, axis=0), quick=True),
    Scenario("8 slices of columns", partial(sharding.reshard, axis=1)),
    Scenario("growth by tensors", growth.by_count),
    Scenario("64x16MiB synced save", partial(saving.durable_save, workload=MEDIUM)),
    Scenario("64x16MiB cold restore", partial(restoring.cold_restore, workload=MEDIUM)),
    Scenario("1M x 64B merge", many.merge_of_many),
    Scenario("growth by size", growth.by_size, size=6 * GIB),
    Scenario("1x4GiB restore", partial(restoring.warm_restore, workload=ONE_LARGE, formats=()), size=4 * GIB),
    Scenario(
        "decoder-350M restore", partial(restoring.warm_restore, workload=DECODER, formats=(SAFETENSORS,)), size=5 * GIB
    ),
    Scenario("decoder-350M save", partial(saving.page_cache_save, workload=DECODER, all_peers=False), size=5 * GIB),
)
