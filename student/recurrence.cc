// The recurrence of an LSTM over sequences of different length, forward and gradient, for CPUs.
//
// What every step can do at once is done outside: the inputs' share of the gates is one matrix product over all steps,
// and so are the gradients of both matrices. Here stays h times a matrix that fits the second-level cache, and the
// gates, in registers. Sequences are sorted by length, so that the batch shrinks as short ones end, and dealt out to
// threads; what comes out does not depend on how many there are.
//
// Built by training/native.py. Letters: B batch, S sequence, U units.

#include <algorithm>
#include <cstdint>
#include <functional>
#include <numeric>
#include <vector>

#include "tensorflow/core/framework/op.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "tensorflow/core/framework/shape_inference.h"
#include "tensorflow/core/lib/core/threadpool.h"
#include "training/lanes.h"

namespace {

using tensorflow::DEVICE_CPU;
using tensorflow::OpKernel;
using tensorflow::OpKernelConstruction;
using tensorflow::OpKernelContext;
using tensorflow::Tensor;
using tensorflow::TensorShape;

#ifdef __AVX512F__
constexpr int kRows = 6;  // 24 sums stay in the 32 registers of AVX-512
#else
constexpr int kRows = 3;  // 12 sums in 16 registers
#endif
constexpr int kGates = 4;

// acc[r][v] += sum over k of rows[r][k] * panel[k][v]; a row of the panel has `vectors` groups of lanes.
template <int rows, int vectors>
inline void Multiply(const float* const* inputs, const float* panel, int depth, Lanes (*acc)[kGates]) {
  Lanes sums[rows][vectors];
  for (int r = 0; r < rows; ++r)
    for (int v = 0; v < vectors; ++v) sums[r][v] = acc[r][v];
  for (int k = 0; k < depth; ++k) {
    Lanes columns[vectors];
    for (int v = 0; v < vectors; ++v) columns[v] = Load(panel + (k * vectors + v) * kLanes);
    for (int r = 0; r < rows; ++r) {
      const Lanes factor = Fill(inputs[r][k]);
      for (int v = 0; v < vectors; ++v) sums[r][v] += factor * columns[v];
    }
  }
  for (int r = 0; r < rows; ++r)
    for (int v = 0; v < vectors; ++v) acc[r][v] = sums[r][v];
}

template <int vectors, int most = kRows>
inline void MultiplyRows(int rows, const float* const* inputs, const float* panel, int depth, Lanes (*acc)[kGates]) {
  if (rows == most) return Multiply<most, vectors>(inputs, panel, depth, acc);
  MultiplyRows<vectors, (most > 1 ? most - 1 : 1)>(rows, inputs, panel, depth, acc);
}

inline void MultiplyAny(int rows, int vectors, const float* const* inputs, const float* panel, int depth,
                        Lanes (*acc)[kGates]) {
  switch (vectors) {
    case 1: return MultiplyRows<1>(rows, inputs, panel, depth, acc);
    case 2: return MultiplyRows<2>(rows, inputs, panel, depth, acc);
    case 3: return MultiplyRows<3>(rows, inputs, panel, depth, acc);
    default: return MultiplyRows<4>(rows, inputs, panel, depth, acc);
  }
}

// The same of one row and two panels.
inline void MultiplyPair(const float* input, const float* one, const float* other, int depth, Lanes (*acc)[kGates]) {
  Lanes sums[2][kGates];
  for (int b = 0; b < 2; ++b)
    for (int gate = 0; gate < kGates; ++gate) sums[b][gate] = acc[b][gate];
  for (int k = 0; k < depth; ++k) {
    const Lanes factor = Fill(input[k]);
    for (int gate = 0; gate < kGates; ++gate) {
      sums[0][gate] += factor * Load(one + (k * kGates + gate) * kLanes);
      sums[1][gate] += factor * Load(other + (k * kGates + gate) * kLanes);
    }
  }
  for (int b = 0; b < 2; ++b)
    for (int gate = 0; gate < kGates; ++gate) acc[b][gate] = sums[b][gate];
}

// The sequences that one thread runs, by falling length, and where the token of each step stands.
class Part {
 public:
  Part(const std::vector<int>& by_length, const Tensor& lengths, int64_t steps, bool reverse, int first, int stride)
      : steps_(steps), reverse_(reverse) {
    for (size_t place = first; place < by_length.size(); place += stride) {
      sequence_.push_back(by_length[place]);
      length_.push_back(Length(lengths, by_length[place], steps));
    }
  }

  static int64_t Length(const Tensor& lengths, int sequence, int64_t steps) {
    return std::min<int64_t>(std::max(lengths.flat<int32_t>()(sequence), 0), steps);
  }

  int Size() const { return sequence_.size(); }
  int Longest() const { return length_.empty() ? 0 : length_[0]; }

  // How many sequences have a token at that step: the first ones.
  int Active(int step) const {
    return std::lower_bound(length_.begin(), length_.end(), step, [](int length, int s) { return length > s; }) -
           length_.begin();
  }

  // Of the row-th sequence, at its step: a row of [B S, ...].
  int64_t Token(int row, int step) const {
    return sequence_[row] * steps_ + (reverse_ ? length_[row] - 1 - step : step);
  }

 private:
  int64_t steps_;
  bool reverse_;
  std::vector<int> sequence_, length_;
};

// Deals the sequences out to threads, so that each has long and short ones, and runs `work` on every part.
template <typename Work>
void ForEachPart(OpKernelContext* context, const Tensor& lengths, int64_t steps, bool reverse, Work work) {
  const int size = lengths.NumElements();
  std::vector<int> by_length(size);
  std::iota(by_length.begin(), by_length.end(), 0);
  std::stable_sort(by_length.begin(), by_length.end(), [&](int one, int other) {
    return Part::Length(lengths, one, steps) > Part::Length(lengths, other, steps);
  });
  const auto& threads = *context->device()->tensorflow_cpu_worker_threads();
  const int parts = std::max(1, std::min(threads.num_threads, (size + kRows - 1) / kRows));
  const auto run = [&](int64_t first, int64_t limit) {
    for (int part = first; part < limit; ++part) work(Part(by_length, lengths, steps, reverse, part, parts));
  };
  if (parts == 1) return run(0, 1);
  threads.workers->ParallelFor(parts, int64_t{1} << 30, run);  // a cost that gives each part to a thread of its own
}

// Runs `work(first row, rows)` over blocks of rows.
template <typename Work>
inline void ByRows(int active, Work work) {
  const int blocks = (active + kRows - 1) / kRows;
  for (int block = 0, first = 0; block < blocks; ++block) {  // of nearly equal size: few rows use a panel badly
    const int rows = (active - first) / (blocks - block);
    work(first, rows);
    first += rows;
  }
}

inline int Blocks(int units) { return (units + kLanes - 1) / kLanes; }

struct Forward {
  const float *gates, *kernel;           // [B S, 4 U], [U, 4 U]
  float *hidden, *activations, *cells;   // [B S, U], [B S, 4 U], [B S, U]
  int units;
  float forget_bias;
  std::vector<float> panels, zeros;

  // [block of units][k][gate][lane]: one pass over a block gives all four gates of its units.
  void Pack() {
    zeros.assign(units, 0.0f);
    panels.resize(static_cast<size_t>(Blocks(units)) * units * kGates * kLanes);
    float* to = panels.data();
    for (int unit = 0; unit < units; unit += kLanes)
      for (int row = 0; row < units * kGates; ++row, to += kLanes)
        Store(to, LoadSome(kernel + static_cast<size_t>(row) * units + unit, std::min(kLanes, units - unit)));
  }

  const float* Panel(int block) const { return &panels[static_cast<size_t>(block) * units * kGates * kLanes]; }

  void Run(const Part& part) const {
    for (int step = 0; step < part.Longest(); ++step)
      ByRows(part.Active(step), [&](int first, int rows) { Step(part, step, first, rows); });
  }

  void Step(const Part& part, int step, int first, int rows) const {
    int64_t token[kRows], before[kRows];
    const float* state[kRows];
    for (int r = 0; r < rows; ++r) {
      token[r] = part.Token(first + r, step);
      before[r] = step ? part.Token(first + r, step - 1) : -1;
      state[r] = step ? hidden + before[r] * units : zeros.data();
    }
    int block = 0;
    for (; rows == 1 && block + 1 < Blocks(units); block += 2) {  // the sums of one block would wait for each other
      Lanes acc[2][kGates];
      for (int b = 0; b < 2; ++b) Start(token[0], block + b, acc[b]);
      if (step) MultiplyPair(state[0], Panel(block), Panel(block + 1), units, acc);
      for (int b = 0; b < 2; ++b) Finish(acc[b], token[0], before[0], block + b);
    }
    for (; block < Blocks(units); ++block) {
      Lanes acc[kRows][kGates];
      for (int r = 0; r < rows; ++r) Start(token[r], block, acc[r]);
      if (step) MultiplyRows<kGates>(rows, state, Panel(block), units, acc);
      for (int r = 0; r < rows; ++r) Finish(acc[r], token[r], before[r], block);
    }
  }

  // What the input gives to the gates of a block of one token.
  void Start(int64_t token, int block, Lanes* acc) const {
    const int unit = block * kLanes;
    for (int gate = 0; gate < kGates; ++gate)
      acc[gate] = LoadSome(gates + (token * kGates + gate) * units + unit, std::min(kLanes, units - unit));
  }

  // From what goes into the gates of a block of one token to its state.
  void Finish(const Lanes* acc, int64_t token, int64_t before, int block) const {
    const int unit = block * kLanes, count = std::min(kLanes, units - unit);
    const Lanes in = Sigmoid(acc[0]), update = Tanh(acc[1]);
    const Lanes forget = Sigmoid(acc[2] + forget_bias), out = Sigmoid(acc[3]);
    Lanes cell = in * update;
    if (before >= 0) cell += forget * LoadSome(cells + before * units + unit, count);
    float* kept = activations + token * kGates * units + unit;
    StoreSome(kept, in, count);
    StoreSome(kept + units, update, count);
    StoreSome(kept + 2 * units, forget, count);
    StoreSome(kept + 3 * units, out, count);
    StoreSome(cells + token * units + unit, cell, count);
    StoreSome(hidden + token * units + unit, out * Tanh(cell), count);
  }
};

struct Backward {
  const float *hidden_gradient, *kernel, *activations, *cells;  // [B S, U], [U, 4 U], [B S, 4 U], [B S, U]
  float* gates_gradient;                                        // [B S, 4 U]
  int units;
  std::vector<float> panels;

  // The transposed matrix, up to four blocks of units a panel: [panel][k of 4 U][block][lane].
  void Pack() {
    const int blocks = Blocks(units), depth = kGates * units;
    panels.assign(static_cast<size_t>(blocks) * depth * kLanes, 0.0f);
    for (int block = 0; block < blocks; block += kGates) {
      const int width = std::min(kGates, blocks - block) * kLanes, first = block * kLanes;
      float* panel = &panels[static_cast<size_t>(first) * depth];
      for (int unit = first; unit < std::min(units, first + width); ++unit)
        for (int k = 0; k < depth; ++k)
          panel[static_cast<size_t>(k) * width + unit - first] = kernel[static_cast<size_t>(unit) * depth + k];
    }
  }

  void Run(const Part& part) const {
    const size_t width = Blocks(units) * kLanes;
    std::vector<float> of_state(part.Size() * width, 0.0f), of_cell(part.Size() * width, 0.0f);
    for (int step = part.Longest() - 1; step >= 0; --step)
      ByRows(part.Active(step), [&](int first, int rows) {
        const float* derived[kRows];
        for (int r = 0; r < rows; ++r) {
          const int64_t token = part.Token(first + r, step);
          const int64_t before = step ? part.Token(first + r, step - 1) : -1;
          const size_t row = (first + r) * width;
          for (int unit = 0; unit < units; unit += kLanes)
            ThroughGates(token, before, &of_state[row + unit], &of_cell[row + unit], unit);
          derived[r] = gates_gradient + token * kGates * units;
        }
        if (step) ThroughKernel(rows, derived, &of_state[first * width], width);
      });
  }

  // The gradient of some units' gates; of_cell becomes that of the cell a step before.
  void ThroughGates(int64_t token, int64_t before, const float* of_state, float* of_cell, int unit) const {
    const int count = std::min(kLanes, units - unit);
    const float* kept = activations + token * kGates * units + unit;
    const Lanes in = LoadSome(kept, count), update = LoadSome(kept + units, count);
    const Lanes forget = LoadSome(kept + 2 * units, count), out = LoadSome(kept + 3 * units, count);
    const Lanes cell = Tanh(LoadSome(cells + token * units + unit, count));
    const Lanes of_h = LoadSome(hidden_gradient + token * units + unit, count) + Load(of_state);
    const Lanes of_c = of_h * out * (1.0f - cell * cell) + Load(of_cell);
    float* to = gates_gradient + token * kGates * units + unit;
    StoreSome(to, of_c * update * in * (1.0f - in), count);
    StoreSome(to + units, of_c * in * (1.0f - update * update), count);
    if (before >= 0)
      StoreSome(to + 2 * units, of_c * LoadSome(cells + before * units + unit, count) * forget * (1.0f - forget), count);
    StoreSome(to + 3 * units, of_h * cell * out * (1.0f - out), count);
    Store(of_cell, of_c * forget);
  }

  // The gradient of the states a step before, [rows, width].
  void ThroughKernel(int rows, const float* const* derived, float* of_state, size_t width) const {
    const int blocks = Blocks(units), depth = kGates * units;
    for (int block = 0; block < blocks; block += kGates) {
      const int vectors = std::min(kGates, blocks - block);
      Lanes acc[kRows][kGates] = {};
      MultiplyAny(rows, vectors, derived, &panels[static_cast<size_t>(block) * kLanes * depth], depth, acc);
      for (int r = 0; r < rows; ++r)
        for (int v = 0; v < vectors; ++v) Store(of_state + r * width + (block + v) * kLanes, acc[r][v]);
    }
  }
};

bool Fit(const Tensor& gates, const Tensor& kernel, const Tensor& lengths) {
  return gates.dims() == 3 && kernel.dims() == 2 && lengths.dims() == 1 && lengths.dim_size(0) == gates.dim_size(0) &&
         kernel.dim_size(1) == kGates * kernel.dim_size(0) && gates.dim_size(2) == kernel.dim_size(1);
}

#define NEEDED "gates [B, S, 4 U], kernel [U, 4 U] and lengths [B] are needed"

class LstmRecurrence : public OpKernel {
 public:
  explicit LstmRecurrence(OpKernelConstruction* context) : OpKernel(context) {
    OP_REQUIRES_OK(context, context->GetAttr("reverse", &reverse_));
    OP_REQUIRES_OK(context, context->GetAttr("forget_bias", &forget_bias_));
  }

  void Compute(OpKernelContext* context) override {
    const Tensor &gates = context->input(0), &kernel = context->input(1), &lengths = context->input(2);
    OP_REQUIRES(context, Fit(gates, kernel, lengths), tensorflow::errors::InvalidArgument(NEEDED));
    const int64_t steps = gates.dim_size(1), units = kernel.dim_size(0);
    const TensorShape shape({gates.dim_size(0), steps, units});
    Tensor *hidden, *activations, *cells;
    OP_REQUIRES_OK(context, context->allocate_output(0, shape, &hidden));
    OP_REQUIRES_OK(context, context->allocate_output(1, gates.shape(), &activations));
    OP_REQUIRES_OK(context, context->allocate_output(2, shape, &cells));
    // Padding is read by the products over all tokens that follow.
    std::fill_n(hidden->flat<float>().data(), hidden->NumElements(), 0.0f);
    Forward forward{gates.flat<float>().data(), kernel.flat<float>().data(), hidden->flat<float>().data(),
                    activations->flat<float>().data(), cells->flat<float>().data(), static_cast<int>(units),
                    forget_bias_, {}, {}};
    forward.Pack();
    ForEachPart(context, lengths, steps, reverse_, [&](const Part& part) { forward.Run(part); });
  }

 private:
  bool reverse_;
  float forget_bias_;
};

class LstmRecurrenceGrad : public OpKernel {
 public:
  explicit LstmRecurrenceGrad(OpKernelConstruction* context) : OpKernel(context) {
    OP_REQUIRES_OK(context, context->GetAttr("reverse", &reverse_));
  }

  void Compute(OpKernelContext* context) override {
    const Tensor &hidden_gradient = context->input(0), &kernel = context->input(1), &lengths = context->input(2);
    const Tensor &activations = context->input(3), &cells = context->input(4);
    OP_REQUIRES(context, Fit(activations, kernel, lengths) && hidden_gradient.shape() == cells.shape(),
                tensorflow::errors::InvalidArgument(NEEDED));
    Tensor* result;
    OP_REQUIRES_OK(context, context->allocate_output(0, activations.shape(), &result));
    std::fill_n(result->flat<float>().data(), result->NumElements(), 0.0f);
    Backward backward{hidden_gradient.flat<float>().data(), kernel.flat<float>().data(),
                      activations.flat<float>().data(), cells.flat<float>().data(), result->flat<float>().data(),
                      static_cast<int>(kernel.dim_size(0)), {}};
    backward.Pack();
    ForEachPart(context, lengths, activations.dim_size(1), reverse_, [&](const Part& part) { backward.Run(part); });
  }

 private:
  bool reverse_;
};

REGISTER_OP("LstmRecurrence")
    .Attr("reverse: bool")
    .Attr("forget_bias: float")
    .Input("gates: float")
    .Input("kernel: float")
    .Input("lengths: int32")
    .Output("hidden: float")
    .Output("activations: float")
    .Output("cells: float")
    .SetShapeFn([](tensorflow::shape_inference::InferenceContext* context) {
      tensorflow::shape_inference::ShapeHandle gates, hidden;
      TF_RETURN_IF_ERROR(context->WithRank(context->input(0), 3, &gates));
      TF_RETURN_IF_ERROR(context->ReplaceDim(gates, 2, context->Dim(context->input(1), 0), &hidden));
      context->set_output(0, hidden);
      context->set_output(1, gates);
      context->set_output(2, hidden);
      return tensorflow::Status();
    });

REGISTER_OP("LstmRecurrenceGrad")
    .Attr("reverse: bool")
    .Input("hidden_gradient: float")
    .Input("kernel: float")
    .Input("lengths: int32")
    .Input("activations: float")
    .Input("cells: float")
    .Output("gates_gradient: float")
    .SetShapeFn([](tensorflow::shape_inference::InferenceContext* context) {
      context->set_output(0, context->input(3));
      return tensorflow::Status();
    });

REGISTER_KERNEL_BUILDER(Name("LstmRecurrence").Device(DEVICE_CPU), LstmRecurrence);
REGISTER_KERNEL_BUILDER(Name("LstmRecurrenceGrad").Device(DEVICE_CPU), LstmRecurrenceGrad);

}  // namespace
