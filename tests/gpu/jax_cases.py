"""JAX: arrays that nobody may change, on streams that nobody sees."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from binding import FLOAT32, Driver, Library, Placed
from cases import Case, numbers, refused, same, saved
from engines import DEVICE, Skip, unchanged


class OnJax:
    """A source of saves only; restored tensors come by DLPack."""

    name = "jax"

    def __init__(self) -> None:
        try:
            import jax
        except ImportError as error:
            raise Skip(f"JAX is not installed: {error}") from error
        try:
            self.device: Any = jax.devices("gpu")[DEVICE]
        except RuntimeError as error:
            raise Skip(f"JAX finds no GPU: {error}") from error
        self.jax: Any = jax

    def doubled(self, values: Any) -> Any:
        """The result of a computation, once it is ready: no stream has to be named for it."""
        return (self.jax.device_put(values, self.device) * 2).block_until_ready()

    def place(self, key: str, array: Any) -> Placed:
        """As it is."""
        address = array.addressable_data(0).unsafe_buffer_pointer()
        return Placed(key, FLOAT32, array.shape, address, array.nbytes, DEVICE)

    def current(self) -> Any:
        """Where new arrays go."""
        return self.jax.config.jax_default_device, self.jax.numpy.zeros(1).devices()


def a_save_writes_what_an_array_of_jax_holds(lib: Library, engine: OnJax, driver: Driver, folder: Path) -> None:
    """By its address."""
    source = numbers((300, 70), 5)
    array = engine.doubled(source)
    lib.save(folder / "model", [engine.place("w", array)])
    same(lib.restored_on_host(folder / "model", "w", source.shape), source * 2)


def what_is_current_stays_so(lib: Library, engine: OnJax, driver: Driver, folder: Path) -> None:
    """Device and context, after a save and after an error."""
    source = numbers((4096,), 6)
    prefix = saved(lib, folder, {"w": source})
    array = engine.doubled(source)
    looks = (driver.current, engine.current)
    with unchanged("after a save", *looks):
        lib.save(folder / "other", [engine.place("w", array)])
    with unchanged("after an error", *looks):
        refused(lib, prefix, Placed("w", FLOAT32, (4096,), 0, 16384, 99))
    same(lib.restored_on_host(folder / "other", "w", source.shape), source * 2)


JAX_CASES: tuple[Case, ...] = (a_save_writes_what_an_array_of_jax_holds, what_is_current_stays_so)
