"""Fused kernels in Triton, each behind one torch operator with a reference in plain torch.

The import name is always `diffalign.cuda_ext`; the folder lies at the top of the repository and is linked into the
package. Everything works without a GPU and without Triton: what a kernel does not support is computed by its reference.
"""

from __future__ import annotations

if __name__ == "cuda_ext":
    raise ImportError("this folder is the package `diffalign.cuda_ext`: write `import diffalign.cuda_ext`")

from diffalign.cuda_ext.cross_attention import cross_attention
from diffalign.cuda_ext.linear_log_prob import linear_log_prob
from diffalign.cuda_ext.sampler_step import affine, sampler_step

__all__ = ["affine", "cross_attention", "linear_log_prob", "sampler_step"]
