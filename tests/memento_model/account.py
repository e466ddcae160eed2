"""Bytes of all tensors that are alive, and their largest sum: what a device would have to hold."""

from __future__ import annotations

import weakref

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Account(TorchDispatchMode):
    """Counts every storage once, from the operation that makes it to its end.

    Args:
        start: tensors that are there already.
        elsewhere: tensors whose storage is not counted; more can be added while it counts.
    """

    def __init__(self, start=(), elsewhere=()):
        super().__init__()
        self.live = self.peak = 0
        self._seen = {}
        self._free = {}
        for tensor in elsewhere:
            self.leave_out(tensor)
        for tensor in start:
            self._add(tensor)

    def leave_out(self, tensor):
        """Not on the device: host memory."""
        storage = tensor.untyped_storage()
        self._free[storage._cdata] = tensor
        if storage._cdata in self._seen:
            self.live -= self._seen.pop(storage._cdata)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for value in tree_leaves(out):
            if isinstance(value, torch.Tensor):
                self._add(value)
        self.peak = max(self.peak, self.live)
        return out

    def _add(self, tensor):
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._seen or key in self._free:
            return
        self._seen[key] = storage.nbytes()
        self.live += storage.nbytes()
        weakref.finalize(storage, self._drop, key)

    def _drop(self, key):
        self.live -= self._seen.pop(key, 0)
