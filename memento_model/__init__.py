"""Memento on Wan2.2: a video diffusion transformer that remembers earlier shots, its training and its use."""

import logging

# PEFT imports bitsandbytes where that is installed; on CPUs it warns of a kernel that nothing here uses.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
