// What Python calls through ctypes: each op of api.h's cuda:: half, its views passed by address.
// Returns the Status, or -1 with a message in door_message().
#include "door.h"

extern "C" {

int door_encode_rows(const cfsae::RowsView* rows, const cfsae::Matrix* weight, const float* bias,
                     float* out, const cfsae::cuda::Execution* execution) {
  return door_run([&] { return cfsae::cuda::encode_rows(*rows, *weight, bias, out, *execution); });
}

int64_t door_encode_rows_backward_bytes(int64_t n_entries, int64_t n_items) {
  return cfsae::cuda::encode_rows_backward_bytes(n_entries, n_items);
}

int door_encode_rows_backward(const cfsae::RowsView* rows, int64_t n_entries,
                              const cfsae::Matrix* weight, const cfsae::Matrix* grad,
                              float* grad_weight, float* grad_bias, float* grad_values,
                              const cfsae::cuda::Execution* execution) {
  return door_run([&] {
    return cfsae::cuda::encode_rows_backward(*rows, n_entries, *weight, *grad, grad_weight,
                                             grad_bias, grad_values, *execution);
  });
}

int64_t door_topk_encode_bytes(int64_t n_rows, int64_t dim, int64_t n_latents, int64_t k,
                               int precision) {
  return cfsae::cuda::topk_encode_bytes(n_rows, dim, n_latents, k,
                                        static_cast<cfsae::cuda::Precision>(precision));
}

int door_topk_encode(const cfsae::Matrix* embedding, const cfsae::Matrix* encoder,
                     const float* bias, const float* centre, const cfsae::CodeOut* code,
                     float* mean, float* std, int precision,
                     const cfsae::cuda::Execution* execution) {
  return door_run([&] {
    return cfsae::cuda::topk_encode(*embedding, *encoder, bias, centre, *code, mean, std,
                                    static_cast<cfsae::cuda::Precision>(precision), *execution);
  });
}

int64_t door_topk_encode_backward_bytes(int64_t n_rows, int64_t dim, int64_t n_latents, int64_t k) {
  return cfsae::cuda::topk_encode_backward_bytes(n_rows, dim, n_latents, k);
}

int door_topk_encode_backward(const cfsae::Matrix* embedding, const cfsae::Matrix* encoder,
                              const float* centre, const cfsae::CodeView* code,
                              const cfsae::StatsView* stats,
                              const cfsae::cuda::TopkEncodeGrads* grads,
                              const cfsae::cuda::Execution* execution) {
  return door_run([&] {
    return cfsae::cuda::topk_encode_backward(*embedding, *encoder, centre, *code, *stats, *grads,
                                             *execution);
  });
}

int door_sparse_decode(const cfsae::CodeView* code, const cfsae::Matrix* dictionary,
                       const float* bias, const cfsae::StatsView* stats, float* out,
                       const cfsae::cuda::Execution* execution) {
  return door_run([&] {
    return cfsae::cuda::sparse_decode(*code, *dictionary, bias, *stats, out, *execution);
  });
}

int64_t door_sparse_decode_backward_bytes(int64_t n_rows, int64_t k, int64_t n_latents) {
  return cfsae::cuda::sparse_decode_backward_bytes(n_rows, k, n_latents);
}

int door_sparse_decode_backward(const cfsae::CodeView* code, const cfsae::Matrix* dictionary,
                                const float* bias, const cfsae::StatsView* stats,
                                const cfsae::Matrix* grad,
                                const cfsae::cuda::SparseDecodeGrads* grads,
                                const cfsae::cuda::Execution* execution) {
  return door_run([&] {
    return cfsae::cuda::sparse_decode_backward(*code, *dictionary, bias, *stats, *grad, *grads,
                                               *execution);
  });
}

int door_steer(const cfsae::CodeView* code, const cfsae::KnobsView* knobs, int64_t most_knobs,
               const cfsae::CodeOut* out, const cfsae::cuda::Execution* execution) {
  return door_run([&] { return cfsae::cuda::steer(*code, *knobs, most_knobs, *out, *execution); });
}

int door_steer_decode(const cfsae::Matrix* embedding, const cfsae::CodeView* code,
                      const cfsae::KnobsView* knobs, int64_t most_knobs,
                      const cfsae::Matrix* dictionary, const float* bias,
                      const cfsae::StatsView* stats, int mode, float* out,
                      const cfsae::cuda::Execution* execution) {
  return door_run([&] {
    return cfsae::cuda::steer_decode(*embedding, *code, *knobs, most_knobs, *dictionary, bias,
                                     *stats, static_cast<cfsae::DecodeMode>(mode), out, *execution);
  });
}

int64_t door_recommend_bytes(int64_t n_rows, int64_t dim, int64_t n_items, int64_t n,
                             int precision) {
  return cfsae::cuda::recommend_bytes(n_rows, dim, n_items, n,
                                      static_cast<cfsae::cuda::Precision>(precision));
}

int door_recommend(const cfsae::Matrix* embedding, const cfsae::Matrix* items, const float* bias,
                   const cfsae::RowsView* seen, const uint8_t* allowed, const cfsae::CodeOut* out,
                   int precision, const cfsae::cuda::Execution* execution) {
  return door_run([&] {
    return cfsae::cuda::recommend(*embedding, *items, bias, seen, allowed, *out,
                                  static_cast<cfsae::cuda::Precision>(precision), *execution);
  });
}

int64_t door_folded_topk_encode_bytes(int64_t n_rows, int64_t dim, int64_t n_latents, int64_t k) {
  return cfsae::cuda::folded_topk_encode_bytes(n_rows, dim, n_latents, k);
}

int door_folded_topk_encode(const cfsae::RowsView* rows, const cfsae::cuda::FoldedEncoder* folded,
                            const cfsae::Matrix* embedding, const cfsae::Matrix* encoder,
                            const float* bias, const float* centre, const cfsae::CodeOut* code,
                            float* mean, float* std, const cfsae::cuda::Execution* execution) {
  return door_run([&] {
    return cfsae::cuda::folded_topk_encode(*rows, *folded, *embedding, *encoder, bias, centre,
                                           *code, mean, std, *execution);
  });
}

int64_t door_folded_recommend_bytes(int64_t n_rows, int64_t n_items, int64_t n) {
  return cfsae::cuda::folded_recommend_bytes(n_rows, n_items, n);
}

int door_folded_recommend(const cfsae::CodeView* code, const cfsae::StatsView* stats,
                          const cfsae::cuda::FoldedDecoder* folded, const cfsae::Matrix* embedding,
                          const cfsae::Matrix* items, const float* bias,
                          const cfsae::RowsView* seen, const uint8_t* allowed,
                          const cfsae::CodeOut* out, const cfsae::cuda::Execution* execution) {
  return door_run([&] {
    return cfsae::cuda::folded_recommend(*code, *stats, *folded, *embedding, *items, bias, seen,
                                         allowed, *out, *execution);
  });
}

int door_folded_scores(const cfsae::CodeView* code, const cfsae::cuda::FoldedTable* products,
                       float* out, const cfsae::cuda::Execution* execution) {
  return door_run([&] { return cfsae::cuda::folded_scores(*code, *products, out, *execution); });
}

int door_adam(const cfsae::cuda::Adam* adam, int64_t n, const float* grad, float* parameters,
              float* first, float* second, const cfsae::cuda::Execution* execution) {
  return door_run(
      [&] { return cfsae::cuda::adam(*adam, n, grad, parameters, first, second, *execution); });
}

int door_keep_above(const cfsae::CodeOut* code, float threshold,
                    const cfsae::cuda::Execution* execution) {
  return door_run([&] { return cfsae::cuda::keep_above(*code, threshold, *execution); });
}

int door_widen(const int32_t* ids, int64_t n, int64_t* out,
               const cfsae::cuda::Execution* execution) {
  return door_run([&] { return cfsae::cuda::widen(ids, n, out, *execution); });
}

}  // extern "C"
