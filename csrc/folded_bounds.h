// How far a screened value can be from the fp32 value of the dense path. Lengths bound every inner
// product (Cauchy-Schwarz), kUnit every operation; a factor of 2 and a few operations are to spare.
#pragma once

#include <cmath>
#include <cstdint>

#include "api.h"

#if defined(__CUDACC__)
#define CFSAE_ANYWHERE __host__ __device__ inline  // the CPU engine and the kernels share them
#else
#define CFSAE_ANYWHERE inline
#endif

namespace cfsae {

inline constexpr double kUnit = 1.0 / (1 << 24);  // relative rounding error of one fp32 operation
inline constexpr double kWorthless = 1e30;  // a bound (or a value) near fp32's end excludes nothing

// sum_j |weight_j| and sum_j |weight_j| * errors[id_j], over the ids that are rows.
struct Weighed {
  double total = 0.0, error = 0.0;
};

// Of underflow: 1e-34 covers a million operations that each lose a denormal.
CFSAE_ANYWHERE double underflow(double std) { return 1e-34 * (1.0 + std + 1.0 / std); }

CFSAE_ANYWHERE double usable(double bound, double magnitude, double std) {
  const bool sane = std > 0.0 && magnitude < kWorthless && bound < kWorthless;
  return sane ? bound : HUGE_VAL;
}

// Of (sum_j value_j A_j - mean) / std . encoder row + offset; `length` is the query's.
CFSAE_ANYWHERE double encode_bound(const cpu::FoldedEncoder& folded, const Weighed& weighed,
                                   int64_t n, int64_t dim, double mean, double std, double length) {
  const double spread = weighed.total * folded.item_norm;  // the embedding is no longer than this
  const double shift = sqrt(static_cast<double>(dim)) * fabs(mean);
  const double reach = (spread + shift) / std * folded.latent_norm;
  // offset + centre . encoder row, from the query: centre = embedding' - query
  const double centre = (spread + shift) / std + length;
  const double tables = weighed.error / std;
  const double sums = 4.0 * kUnit * static_cast<double>(n + 32) * reach;
  const double dots = 2.0 * kUnit * static_cast<double>(dim + 32) * length * folded.latent_norm;
  const double offsets = 16.0 * kUnit * (folded.offset + centre * folded.latent_norm);
  const double bound = (tables + sums + dots + offsets) * 1.001 + underflow(std);
  return usable(bound, reach + centre * folded.latent_norm + folded.offset, std);
}

// Of mean * sum + std * (shift + sum_j value_j V_j) + bias; `length` is that of embedding'.
CFSAE_ANYWHERE double decode_bound(const cpu::FoldedDecoder& folded, const Weighed& weighed,
                                   int64_t k, int64_t dim, double mean, double std, double length) {
  const double reach = std * weighed.total * folded.atom_norm * folded.item_norm;
  const double shift =
      (sqrt(static_cast<double>(dim)) * fabs(mean) + std * folded.bias_norm) * folded.item_norm;
  const double tables = std * weighed.error;
  const double sums = 4.0 * kUnit * static_cast<double>(k + 32) * (reach + shift);
  const double dots = 2.0 * kUnit * static_cast<double>(dim + 32) * length * folded.item_norm;
  const double bound =
      (tables + sums + dots + 16.0 * kUnit * folded.offset) * 1.001 + underflow(std);
  return usable(bound, reach + shift + length * folded.item_norm + folded.offset, std);
}

}  // namespace cfsae
