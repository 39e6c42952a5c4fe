"""The coding rate (Yu et al., MCR2, arXiv 2006.08558), which EMP-SSL and SimDINO maximize."""

import torch
from jaxtyping import Float
from torch import Tensor

from noneg.losses.gram import smaller_gram
from noneg.losses.inputs import in_full_precision, to_float64


@in_full_precision
def coding_rate(z: Float[Tensor, "batch width"], *, distortion: float = 0.5) -> Float[Tensor, ""]:
    """Nats needed to code the batch up to a distortion; methods maximize it.

        R = 1/2 log det(I + d / (n distortion) Z'Z) = 1/2 log det(I + d / (n distortion) ZZ')

    The smaller of the two matrices is built (Sylvester's identity) and factorized by Cholesky, in
    float64 if the device has it: beside large eigenvalues, the identity would be lost in rounding.

    Convention: MCR2's R(Z, epsilon) with n samples, d coordinates, distortion = epsilon squared
    (EMP-SSL has 0.2). `z` is not centered; embeddings are usually of unit length.

    Args:
        z: embeddings; bfloat16 and float16 become float32.
        distortion: epsilon squared, > 0.

    Returns:
        R >= 0; 0 for zeros.
    """
    batch, width = z.shape
    matrix = smaller_gram(to_float64(z)) * (width / (batch * distortion))
    matrix = matrix + torch.eye(len(matrix), dtype=matrix.dtype, device=z.device)
    # Half of the log-determinant is the sum of the logarithms of the factor's diagonal.
    rate: Tensor = torch.linalg.cholesky(matrix).diagonal().log().sum().to(z.dtype)
    return rate
