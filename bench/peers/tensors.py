"""NumPy's arrays as PyTorch's tensors."""

import numpy as np
import torch


def to_torch(array):
    if array.dtype.name == "bfloat16":
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)
