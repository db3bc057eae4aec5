// The queries of topk_encode and of its folded twin.
#pragma once

#include "cuda/platform.h"

namespace cfsae::cuda {

// centred (B, d) = (embedding - mean) / std - centre; mean and std are written, or null: 0 and 1.
Status standardise(const Matrix& embedding, const float* centre, float* mean, float* std,
                   float* centred, void* stream);

}  // namespace cfsae::cuda
