"""libtfckpt as the GPU's tests and the benches call it: each function by its name, errors as exceptions."""

from __future__ import annotations

import ctypes
from ctypes import byref, c_void_p
from pathlib import Path
from typing import Any

from tfckpt_abi import SIGNATURES


class TfckptError(Exception):
    """A call failed."""

    def __init__(self, name: str, code: int, message: str) -> None:
        super().__init__(f"{name}: code {code}: {message}")
        self.code, self.message = code, message


class Functions:
    """The loaded library."""

    def __init__(self, path: Path, more: dict[str, tuple[Any, list[Any]]] = {}) -> None:
        self._lib = ctypes.CDLL(str(path))
        for name, (result, arguments) in {**SIGNATURES, **more}.items():
            function = getattr(self._lib, f"tfckpt_{name}", None)
            if function is not None:  # an older library may lack it
                function.restype, function.argtypes = result, arguments

    def has(self, *names: str) -> bool:
        """Whether the library exports these functions."""
        return all(hasattr(self._lib, f"tfckpt_{name}") for name in names)

    def plain(self, name: str, *arguments: Any) -> Any:
        """A function without an error."""
        return getattr(self._lib, f"tfckpt_{name}")(*arguments)

    def call(self, name: str, *arguments: Any) -> None:
        """A function whose last parameter is the error."""
        error = c_void_p()
        code = self.plain(name, *arguments, byref(error))
        if code:
            message = self._lib.tfckpt_error_message(error) if error else b"(no error object)"
            self._lib.tfckpt_error_free(error)
            raise TfckptError(name, code, message.decode(errors="replace"))

    def make(self, name: str, *arguments: Any) -> c_void_p:
        """A function whose parameter before the error receives a handle."""
        handle = c_void_p()
        self.call(name, *arguments, byref(handle))
        return handle
