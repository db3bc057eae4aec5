// A matrix once more in bf16, as the tiles copy it: two columns to a float, rows filled up with
// zeros to whole slices. Half the bytes, and any dimension can be read 16 bytes at a time.
#pragma once

#include "cuda/platform.h"
#include "cuda/workspace.h"

namespace cfsae::cuda {

// Where the copy of a matrix (n_rows, dim) goes; its dim counts floats.
Matrix take_rounded(Workspace& workspace, int64_t n_rows, int64_t dim);
Status round_matrix(const Matrix& from, const Matrix& to, void* stream);

}  // namespace cfsae::cuda
