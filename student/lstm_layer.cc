// An LSTM layer over sequences of different length, forward and gradient, for CPUs.
//
// The inputs' share of the gates is a product over the tokens of many steps at once, which are then used while they are
// in the cache; what a step must wait for is h times a matrix, and the gates, in registers. The gradients of both matrices
// and of the inputs are products over all tokens, and not made here. Sequences are sorted by length, so that the batch
// shrinks as short ones end, and dealt out to threads; what comes out does not depend on how many there are. Padding
// costs nothing.
//
// Built by training/native.py. Letters: B batch, S sequence, F features, U units.

#include <algorithm>
#include <cstdint>
#include <memory>
#include <numeric>
#include <vector>

#include "training/lanes.h"
#include "training/ops.h"
#include "training/products.h"

namespace {

constexpr int kGates = 4;
constexpr int kTokens = 128;  // whose gates a thread makes at once

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

  // work(row, step) for all tokens at steps from `begin` to before `end`; neighbours in memory follow each other.
  template <typename Work>
  void ForEachToken(int begin, int end, Work work) const {
    for (int row = 0; row < Active(begin); ++row)
      for (int step = begin; step < std::min(end, length_[row]); ++step) work(row, step);
  }

  // work(token) for all places where a sequence has no token: the products over all tokens that follow read them.
  template <typename Work>
  void ForEachPadding(Work work) const {
    for (int row = 0; row < Size(); ++row)
      for (int64_t place = length_[row]; place < steps_; ++place) work(sequence_[row] * steps_ + place);
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
  const int threads = context->device()->tensorflow_cpu_worker_threads()->num_threads;
  const int parts = std::max(1, std::min(threads, (size + kRows - 1) / kRows));
  const auto run = [&](int64_t first, int64_t limit) {
    for (int part = first; part < limit; ++part) work(Part(by_length, lengths, steps, reverse, part, parts));
  };
  if (parts == 1) return run(0, 1);
  ForRanges(context, parts, int64_t{1} << 30, run);  // a cost that gives each part to a thread of its own
}

struct Forward {
  const float *inputs, *kernel, *bias;   // [B S, F], [F + U, 4 U], [4 U]
  float *hidden, *activations, *cells;   // [B S, U], [B S, 4 U], [B S, U]; the last two are null without a gradient
  int features, units;
  float forget_bias;
  bool single;                           // there is no other sequence
  Panels projection, recurrence;         // what inputs and states are multiplied by

  // Where that of one token stands.
  struct Token {
    float* gates;              // [4 U]
    const float* cell_before;  // [U]; null: there is none
    float *cell, *hidden;      // [U]
  };

  // Where gates and cells of a part's sequences stand: what a gradient will ask for in the outputs, else in room that
  // is used again, and so stays in the cache.
  class Places {
   public:
    Places(const Forward& forward, const Part& part) : forward_(forward), part_(part) {
      if (forward.activations) return;
      const size_t tokens = std::max(kTokens, part.Size());
      gates_.reset(new float[tokens * kGates * forward.units]);
      cells_.reset(new float[static_cast<size_t>(part.Size()) * forward.units]);
    }

    // From now on they are of steps from `begin` to before `end`.
    void Move(int begin, int end) {
      begin_ = begin;
      steps_ = end - begin;
    }

    float* Gates(int row, int step) const {
      const size_t width = kGates * forward_.units;
      return gates_ ? &gates_[(static_cast<size_t>(row) * steps_ + step - begin_) * width]
                    : forward_.activations + part_.Token(row, step) * width;
    }

    float* Cell(int row, int step) const {
      const size_t width = forward_.units;
      return cells_ ? &cells_[row * width] : forward_.cells + part_.Token(row, step) * width;
    }

   private:
    const Forward& forward_;
    const Part& part_;
    int begin_ = 0, steps_ = 0;
    std::unique_ptr<float[]> gates_, cells_;
  };

  // A row of the kernel is groups of lanes and nothing more, so that it can be read as it is.
  bool Whole() const { return kGates * units % kLanes == 0; }

  // What is packed must be read often enough.
  void Pack(int64_t batch, int64_t steps) {
    const int groups = Groups(kGates * units);
    if (Whole() && batch * steps <= kTokens)
      projection.Take(kernel, features, groups);
    else
      projection.Pack(features, groups, [this](int k, int group) {
        return LoadSome(kernel + static_cast<size_t>(k) * kGates * units + Column(group), Count(group));
      });
    if (Whole() && single) return;
    // Groups are [block of units][gate], so that all four gates of some units come out together.
    recurrence.Pack(units, Groups(units) * kGates, [this](int k, int group) {
      const int gate = group % kGates, unit = group / kGates * kLanes;
      return LoadSome(Recurrence() + (static_cast<size_t>(k) * kGates + gate) * units + unit,
                      std::min(kLanes, units - unit));
    });
  }

  const float* Recurrence() const { return kernel + static_cast<size_t>(features) * kGates * units; }

  void Run(const Part& part) const {
    part.ForEachPadding([this](int64_t token) { std::fill_n(hidden + token * units, units, 0.0f); });
    Places places(*this, part);
    for (int begin = 0, end = 0; begin < part.Longest(); begin = end) {
      end = std::min(part.Longest(), begin + std::max(1, kTokens / part.Active(begin)));
      places.Move(begin, end);
      Project(part, places, begin, end);
      for (int step = begin; step < end; ++step)
        ByRows(part.Active(step), [&](int first, int rows) { Step(part, places, step, first, rows); });
    }
  }

  // What inputs and bias give to the gates.
  void Project(const Part& part, const Places& places, int begin, int end) const {
    std::vector<const float*> from;
    std::vector<float*> to;
    part.ForEachToken(begin, end, [&](int row, int step) {
      from.push_back(inputs + part.Token(row, step) * features);
      to.push_back(places.Gates(row, step));
    });
    projection.ForEach([&](int group, int groups) {
      ByRows(from.size(), [&](int first, int rows) {
        Lanes acc[kRows][kVectors];
        for (int r = 0; r < rows; ++r)
          for (int g = 0; g < groups; ++g) acc[r][g] = LoadSome(bias + Column(group + g), Count(group + g));
        projection.Multiply(group, rows, &from[first], acc[0], kVectors);
        for (int r = 0; r < rows; ++r)
          for (int g = 0; g < groups; ++g)
            StoreSome(to[first + r] + Column(group + g), acc[r][g], Count(group + g));
      });
    });
  }

  static int Column(int group) { return group * kLanes; }
  int Count(int group) const { return std::min(kLanes, kGates * units - Column(group)); }

  void Step(const Part& part, const Places& places, int step, int first, int rows) const {
    Token token[kRows];
    const float* state[kRows];  // read where there was a step before
    for (int r = 0; r < rows; ++r) {
      const int row = first + r;
      token[r] = {places.Gates(row, step), step ? places.Cell(row, step - 1) : nullptr, places.Cell(row, step),
                  hidden + part.Token(row, step) * units};
      state[r] = step ? hidden + part.Token(row, step - 1) * units : nullptr;
    }
    const bool alone = rows == 1 && Whole();
    // Whether a sequence of many runs alone depends on the number of threads, and so must not change its sums.
    if (alone && step) AddState(token[0].gates, state[0], single && step % 2);
    for (int block = 0; block < Groups(units); ++block) {
      Lanes acc[kRows][kGates];
      for (int r = 0; r < rows; ++r) Start(token[r], block, acc[r]);
      for (int gate = 0; !alone && step && gate < kGates; gate += kVectors)
        recurrence.Multiply(block * kGates + gate, rows, state, &acc[0][gate], kGates);
      for (int r = 0; r < rows; ++r) Finish(acc[r], token[r], block);
    }
  }

  // What the state of one sequence gives to all gates of a token, by the matrix as it is, which is read from its end if
  // `back`: at every other step, what was read last is still in the nearest cache.
  void AddState(float* gates, const float* state, bool back) const {
    const int groups = kGates * units / kLanes, parts = (groups + kAlone - 1) / kAlone;
    for (int p = 0; p < parts; ++p) {
      const int part = back ? parts - 1 - p : p;
      const int group = groups * part / parts, vectors = groups * (part + 1) / parts - group;
      const Columns columns{Recurrence() + Column(group), kGates * units, units};
      float* sums = gates + Column(group);
      Lanes acc[kAlone];
      for (int v = 0; v < vectors; ++v) acc[v] = Load(sums + v * kLanes);
      if (back)
        MultiplyAloneBack(vectors, state, columns, acc);
      else
        MultiplyAlone<1>(vectors, state, columns, acc);
      for (int v = 0; v < vectors; ++v) Store(sums + v * kLanes, acc[v]);
    }
  }

  // What goes into the gates of a block of one token so far.
  void Start(const Token& token, int block, Lanes* acc) const {
    const int unit = block * kLanes;
    for (int gate = 0; gate < kGates; ++gate)
      acc[gate] = LoadSome(token.gates + gate * units + unit, std::min(kLanes, units - unit));
  }

  // From what goes into the gates of a block of one token to its state.
  void Finish(const Lanes* acc, const Token& token, int block) const {
    const int unit = block * kLanes, count = std::min(kLanes, units - unit);
    const Lanes in = Sigmoid(acc[0]), update = Tanh(acc[1]);
    const Lanes forget = Sigmoid(acc[2] + forget_bias), out = Sigmoid(acc[3]);
    Lanes cell = in * update;
    if (token.cell_before) cell += forget * LoadSome(token.cell_before + unit, count);
    if (activations) {
      float* kept = token.gates + unit;
      StoreSome(kept, in, count);
      StoreSome(kept + units, update, count);
      StoreSome(kept + 2 * units, forget, count);
      StoreSome(kept + 3 * units, out, count);
    }
    StoreSome(token.cell + unit, cell, count);
    StoreSome(token.hidden + unit, out * Tanh(cell), count);
  }
};

struct Backward {
  const float *hidden_gradient, *kernel, *activations, *cells;  // [B S, U], [F + U, 4 U], [B S, 4 U], [B S, U]
  float* gates_gradient;                                        // [B S, 4 U]
  int features, units;
  Panels recurrence;                                            // the matrix of the states, transposed

  void Pack() {
    const int depth = kGates * units;
    const float* from = kernel + static_cast<size_t>(features) * depth;
    recurrence.Pack(depth, Groups(units), [this, from, depth](int k, int group) {
      Lanes column{};
      for (int lane = 0, unit = group * kLanes; lane < std::min(kLanes, units - unit); ++lane)
        column[lane] = from[static_cast<size_t>(unit + lane) * depth + k];
      return column;
    });
  }

  void Run(const Part& part) const {
    const int gates = kGates * units;
    part.ForEachPadding([&](int64_t token) { std::fill_n(gates_gradient + token * gates, gates, 0.0f); });
    const size_t width = Groups(units) * kLanes;
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
    const Lanes cell_before = before >= 0 ? LoadSome(cells + before * units + unit, count) : Lanes{};
    StoreSome(to + 2 * units, of_c * cell_before * forget * (1.0f - forget), count);
    StoreSome(to + 3 * units, of_h * cell * out * (1.0f - out), count);
    Store(of_cell, of_c * forget);
  }

  // The gradient of the states a step before, [rows, width].
  void ThroughKernel(int rows, const float* const* derived, float* of_state, size_t width) const {
    recurrence.ForEach([&](int group, int groups) {
      Lanes acc[kRows][kVectors] = {};
      recurrence.Multiply(group, rows, derived, acc[0], kVectors);
      for (int r = 0; r < rows; ++r)
        for (int g = 0; g < groups; ++g) Store(of_state + r * width + (group + g) * kLanes, acc[r][g]);
    });
  }
};

bool Fit(const Tensor& sequences, const Tensor& kernel, const Tensor& lengths) {
  return sequences.dims() == 3 && kernel.dims() == 2 && lengths.dims() == 1 &&
         lengths.dim_size(0) == sequences.dim_size(0) && kernel.dim_size(1) % kGates == 0 &&
         kernel.dim_size(1) / kGates <= kernel.dim_size(0);
}

#define NEEDED "inputs [B, S, F], kernel [F + U, 4 U], bias [4 U] and lengths [B] are needed"

class LstmLayer : public OpKernel {
 public:
  explicit LstmLayer(OpKernelConstruction* context) : OpKernel(context) {
    OP_REQUIRES_OK(context, context->GetAttr("reverse", &reverse_));
    OP_REQUIRES_OK(context, context->GetAttr("forget_bias", &forget_bias_));
    OP_REQUIRES_OK(context, context->GetAttr("is_training", &is_training_));
  }

  void Compute(OpKernelContext* context) override {
    const Tensor &inputs = context->input(0), &kernel = context->input(1), &bias = context->input(2);
    const Tensor& lengths = context->input(3);
    OP_REQUIRES(context, Fit(inputs, kernel, lengths) && bias.dims() == 1 && bias.dim_size(0) == kernel.dim_size(1) &&
                inputs.dim_size(2) + kernel.dim_size(1) / kGates == kernel.dim_size(0),
                tensorflow::errors::InvalidArgument(NEEDED));
    const int64_t batch = inputs.dim_size(0), steps = inputs.dim_size(1), units = kernel.dim_size(1) / kGates;
    Tensor *hidden, *activations, *cells;
    OP_REQUIRES_OK(context, context->allocate_output(0, TensorShape({batch, steps, units}), &hidden));
    const int64_t kept = is_training_ ? steps : 0;
    OP_REQUIRES_OK(context, context->allocate_output(1, TensorShape({batch, kept, kGates * units}), &activations));
    OP_REQUIRES_OK(context, context->allocate_output(2, TensorShape({batch, kept, units}), &cells));
    Forward forward{Floats(inputs), Floats(kernel), Floats(bias), Floats(hidden),
                    is_training_ ? Floats(activations) : nullptr, is_training_ ? Floats(cells) : nullptr,
                    static_cast<int>(inputs.dim_size(2)), static_cast<int>(units), forget_bias_, batch == 1, {}, {}};
    forward.Pack(batch, steps);
    ForEachPart(context, lengths, steps, reverse_, [&](const Part& part) { forward.Run(part); });
  }

 private:
  bool reverse_, is_training_;
  float forget_bias_;
};

// Of the gates; those of inputs, kernel and bias are products and sums of it.
class LstmLayerGrad : public OpKernel {
 public:
  explicit LstmLayerGrad(OpKernelConstruction* context) : OpKernel(context) {
    OP_REQUIRES_OK(context, context->GetAttr("reverse", &reverse_));
  }

  void Compute(OpKernelContext* context) override {
    const Tensor &hidden_gradient = context->input(0), &kernel = context->input(1), &lengths = context->input(2);
    const Tensor &activations = context->input(3), &cells = context->input(4);
    OP_REQUIRES(context, Fit(activations, kernel, lengths) && hidden_gradient.shape() == cells.shape(),
                tensorflow::errors::InvalidArgument(NEEDED));
    Tensor* result;
    OP_REQUIRES_OK(context, context->allocate_output(0, activations.shape(), &result));
    const int units = kernel.dim_size(1) / kGates;
    Backward backward{Floats(hidden_gradient), Floats(kernel), Floats(activations), Floats(cells), Floats(result),
                      static_cast<int>(kernel.dim_size(0)) - units, units, {}};
    backward.Pack();
    ForEachPart(context, lengths, activations.dim_size(1), reverse_, [&](const Part& part) { backward.Run(part); });
  }

 private:
  bool reverse_;
};

REGISTER_OP("LstmLayer")
    .Attr("reverse: bool")
    .Attr("forget_bias: float")
    .Attr("is_training: bool")
    .Input("inputs: float")
    .Input("kernel: float")
    .Input("bias: float")
    .Input("lengths: int32")
    .Output("hidden: float")
    .Output("activations: float")
    .Output("cells: float")
    .SetShapeFn([](tensorflow::shape_inference::InferenceContext* context) {
      tensorflow::shape_inference::ShapeHandle inputs, bias, hidden, cells, gates;
      tensorflow::shape_inference::DimensionHandle units;
      TF_RETURN_IF_ERROR(context->WithRank(context->input(0), 3, &inputs));
      TF_RETURN_IF_ERROR(context->WithRank(context->input(2), 1, &bias));
      TF_RETURN_IF_ERROR(context->Divide(context->Dim(bias, 0), kGates, true, &units));
      TF_RETURN_IF_ERROR(context->ReplaceDim(inputs, 2, units, &hidden));
      TF_RETURN_IF_ERROR(context->ReplaceDim(inputs, 2, context->Dim(bias, 0), &gates));
      cells = hidden;
      bool is_training;
      TF_RETURN_IF_ERROR(context->GetAttr("is_training", &is_training));
      if (!is_training) {
        TF_RETURN_IF_ERROR(context->ReplaceDim(gates, 1, context->MakeDim(0), &gates));
        TF_RETURN_IF_ERROR(context->ReplaceDim(cells, 1, context->MakeDim(0), &cells));
      }
      context->set_output(0, hidden);
      context->set_output(1, gates);
      context->set_output(2, cells);
      return tensorflow::Status();
    });

REGISTER_OP("LstmLayerGrad")
    .Attr("reverse: bool")
    .Input("hidden_gradient: float")
    .Input("kernel: float")
    .Input("lengths: int32")
    .Input("activations: float")
    .Input("cells: float")
    .Output("gates_gradient: float")
    .SetShapeFn([](tensorflow::shape_inference::InferenceContext* context) { return LikeInput(context, 3); });

REGISTER_KERNEL_BUILDER(Name("LstmLayer").Device(DEVICE_CPU), LstmLayer);
REGISTER_KERNEL_BUILDER(Name("LstmLayerGrad").Device(DEVICE_CPU), LstmLayerGrad);

}  // namespace
