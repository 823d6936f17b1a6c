"""What others offer for the same work: safetensors and torch, fastsafetensors, the Run:ai streamer.

Each is looked for when the bench starts; one that is missing is left out, and the report says so.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Protocol

import numpy as np

from device import Device, span
from measure import PEER, SAFETENSORS, TORCH
from workloads import PIECE, Workload


class Loader(Protocol):
    """Loads a file of its own format into new memory of a GPU."""

    label: str
    save_label: str
    """Of what it saves with; empty if it saves no tensors of the GPU."""
    group: str
    suffix: str
    """Of its files; those with the same one share a file."""

    def write(self, path: str, workload: Workload, arrays: list[np.ndarray]) -> None:
        """Writes the file from host memory."""

    def load(self, path: str) -> dict[str, Any]:
        """Loads all tensors, and waits until they are there. Timed."""

    def save(self, path: str, tensors: dict[str, Any]) -> None:
        """Saves tensors of the GPU."""

    def release(self) -> None:
        """Ends what the last load left open, once its tensors are no longer needed."""

    def trim(self) -> None:
        """Gives unused memory of the GPU back."""


class _OnTorch:
    """What is common to those that hand out tensors of torch's."""

    save_label = ""

    def __init__(self, number: int) -> None:
        import torch

        if not torch.cuda.is_available():
            raise ImportError("torch finds no GPU")
        self.torch: Any = torch
        self.device = torch.device("cuda", number)

    def wait(self) -> None:
        """Until the GPU has done everything."""
        self.torch.cuda.synchronize(self.device)

    def host(self, arrays: list[np.ndarray], keys: list[str]) -> dict[str, Any]:
        """The same memory as tensors of torch's."""
        return {key: self.torch.from_numpy(array) for key, array in zip(keys, arrays)}

    def release(self) -> None:
        """Nothing is left open."""

    def trim(self) -> None:
        """Gives unused memory of the GPU back."""
        self.release()
        self.torch.cuda.empty_cache()

    def save(self, path: str, tensors: dict[str, Any]) -> None:
        """Saves tensors of the GPU."""
        raise NotImplementedError


class Torch(_OnTorch):
    """torch.load(mmap=True), each tensor then sent to the GPU; torch.save."""

    label, save_label = "torch.load(mmap=True), .cuda()", "torch.save"
    group, suffix = TORCH, ".pt"

    def write(self, path: str, workload: Workload, arrays: list[np.ndarray]) -> None:
        """torch.save."""
        self.torch.save(self.host(arrays, workload.keys), path)

    def load(self, path: str) -> dict[str, Any]:
        """torch.load, then cuda."""
        mapped = self.torch.load(path, mmap=True, weights_only=True)
        loaded = {key: tensor.to(self.device, non_blocking=True) for key, tensor in mapped.items()}
        self.wait()
        return loaded

    def save(self, path: str, tensors: dict[str, Any]) -> None:
        """torch.save."""
        self.torch.save(tensors, path)


class Safetensors(_OnTorch):
    """safetensors.torch.load_file to the GPU; save_file."""

    label, save_label = "safetensors load_file(device=cuda)", "safetensors save_file"
    group, suffix = SAFETENSORS, ".safetensors"

    def __init__(self, number: int) -> None:
        super().__init__(number)
        from safetensors import torch as functions

        self._functions: Any = functions

    def write(self, path: str, workload: Workload, arrays: list[np.ndarray]) -> None:
        """save_file."""
        self._functions.save_file(self.host(arrays, workload.keys), path)

    def load(self, path: str) -> dict[str, Any]:
        """load_file."""
        loaded: dict[str, Any] = self._functions.load_file(path, device=str(self.device))
        self.wait()
        return loaded

    def save(self, path: str, tensors: dict[str, Any]) -> None:
        """save_file."""
        self._functions.save_file(tensors, path)


class Fastsafetensors(Safetensors):
    """fastsafetensors without GPUDirect Storage: page-locked buffers, 16 threads."""

    label, save_label = "fastsafetensors (nogds)", ""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        import fastsafetensors

        self._fast: Any = fastsafetensors
        self._open: tuple[Any, ...] = ()

    def load(self, path: str) -> dict[str, Any]:
        """All tensors of the file, in the loader's own buffer, which stays until `release`."""
        loader = self._fast.SafeTensorsFileLoader(self._fast.SingleGroup(), str(self.device), nogds=True)
        loader.add_filenames({0: [path]})
        buffers = loader.copy_files_to_device()
        loaded = {key: buffers.get_tensor(key) for key in loader.get_keys()}
        self.wait()
        self._open = (loader, buffers)
        return loaded

    def release(self) -> None:
        """Closes the last file's buffers."""
        for part in reversed(self._open):
            part.close()
        self._open = ()


class RunaiStreamer(Safetensors):
    """The Run:ai model streamer: threads read into host memory, from where each tensor is sent."""

    label, save_label = "Run:ai model streamer", ""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        from runai_model_streamer import SafetensorsStreamer

        self._streamer: Any = SafetensorsStreamer

    def load(self, path: str) -> dict[str, Any]:
        """All tensors of the file, in the order in which they come."""
        with self._streamer() as streamer:
            streamer.stream_file(path)
            loaded = {key: tensor.to(self.device) for key, tensor in streamer.get_tensors()}
        self.wait()
        return loaded


class StandIn:
    """For the others on the fake driver, where they cannot be: shows that loaders are timed and checked. It reads and
    writes the workload's bytes, one tensor after the other."""

    label, save_label = "a stand-in for others", "a stand-in's save"
    group, suffix = PEER, ".raw"

    def __init__(self, device: Device) -> None:
        self._device = device
        self._sizes: dict[str, int] = {}
        self._loads: list[ExitStack] = []

    def write(self, path: str, workload: Workload, arrays: list[np.ndarray]) -> None:
        """The tensors' bytes."""
        self._sizes = dict(zip(workload.keys, workload.sizes.tolist()))
        with open(path, "wb") as file:
            file.writelines(arrays)

    def load(self, path: str) -> dict[str, Any]:
        """Through the page-locked memory."""
        memory, loaded = ExitStack(), {}
        self._loads.append(memory)
        offset = 0
        for key, size in self._sizes.items():
            address = memory.enter_context(self._device.memory(size))
            piece = span(address, size)
            piece["offset"] = offset
            self._device.ring(path, piece, min(size, self._device.buffer), 1, 1)
            loaded[key] = _Address(address)
            offset += size
        return loaded

    def save(self, path: str, tensors: dict[str, Any]) -> None:
        """The same the other way."""
        with open(path, "wb") as file:
            for key, size in self._sizes.items():
                self._device.to_host(tensors[key].data_ptr(), size, size, 1)
                file.write(ctypes.string_at(self._device.pinned, size))

    def release(self) -> None:
        """Frees what was loaded last."""
        if self._loads:
            self._loads.pop().close()

    def trim(self) -> None:
        """Frees everything."""
        while self._loads:
            self.release()


@dataclass(frozen=True)
class _Address:
    """A tensor, as far as the bench looks at it."""

    address: int

    def data_ptr(self) -> int:
        """As torch's."""
        return self.address


_LOADERS: tuple[tuple[str, Callable[[int], Any]], ...] = (
    ("safetensors", Safetensors),
    ("torch", Torch),
    ("fastsafetensors", Fastsafetensors),
    ("runai-model-streamer", RunaiStreamer),
)


def available(number: int) -> tuple[list[Any], list[str]]:
    """The loaders that work here, and a line on each package."""
    found, lines = [], []
    for package, make in _LOADERS:
        try:
            found.append(make(number))
            lines.append(f"{package} {version(package)}")
        except (ImportError, PackageNotFoundError, OSError) as error:
            lines.append(f"{package} is missing" if isinstance(error, ModuleNotFoundError) else f"{package}: {error}")
    return found, lines


def pieces_of(tensors: dict[str, Any], workload: Workload) -> np.ndarray:
    """Where a loader has put the workload's tensors."""
    pieces = np.empty(workload.num_tensors, PIECE)
    pieces["offset"], pieces["size"] = workload.offsets, workload.sizes
    pieces["data"] = [tensors[key].data_ptr() for key in workload.keys]
    return pieces
