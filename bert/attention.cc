// Attention of all heads, forward and gradient, for CPUs: scores are made, normalised, dropped and used while they are in
// the cache. The gradient makes them once more, and none is kept.
//
// What comes out does not depend on the number of threads, nor on the other texts. Built by training/native.py. Letters:
// B batch, S sequence, H width, A heads, D width of a head, M = B S.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "training/draws.h"
#include "training/lanes.h"
#include "training/ops.h"
#include "training/products.h"

namespace {

constexpr int64_t kTogether = 1 << 18;  // floats of the heads that a thread has in its cache

// Sizes of a head, whose rows begin H floats one after the other.
struct Shape {
  int length, depth, width;

  int Columns() const { return Groups(length); }
  int DepthGroups() const { return Groups(depth); }
  int Count(int group) const { return std::min(kLanes, depth - group * kLanes); }
  size_t Place(int row, int head, int group = 0) const {
    return static_cast<size_t>(row) * width + head * depth + group * kLanes;
  }

  // So many heads are best taken at once, of which each packs that many matrices [S, D], and keeps those of [S, S].
  int64_t Best(int matrices, int squares) const {
    const int64_t size = static_cast<int64_t>(length) * (matrices * depth + squares * length);
    return std::max<int64_t>(1, kTogether / size);
  }
};

using PerHead = std::vector<Panels>;

void Reserve(PerHead* packed, int heads, int depth, int groups) {
  packed->resize(std::max<size_t>(packed->size(), heads));
  for (int head = 0; head < heads; ++head) (*packed)[head].Reserve(depth, groups);
}

// The rows [S, ...] of some heads, and what is added to each of them, [...]; null: nothing.
struct Biased {
  const float *values, *bias;

  Lanes Of(const Shape& shape, int row, int head, int group) const {
    const int count = shape.Count(group);
    const Lanes given = LoadSome(values + shape.Place(row, head, group), count);
    return bias ? given + LoadSome(bias + shape.Place(0, head, group), count) : given;
  }
};

// Packs the matrices [S, D] of some heads, or their transposes, or both; null: not wanted. All of a row is read before the
// next one, for the other way memory would be waited for.
void Pack(const Shape& shape, const Biased& values, int heads, PerHead* rows, PerHead* columns) {
  if (rows) Reserve(rows, heads, shape.length, shape.DepthGroups());
  if (columns) Reserve(columns, heads, shape.depth, shape.Columns());
  for (int first = 0; first < shape.length; first += kLanes)
    for (int head = 0; head < heads; ++head)
      for (int group = 0; group < shape.DepthGroups(); ++group) {
        Lanes square[kLanes] = {};
        for (int i = 0; i < std::min(kLanes, shape.length - first); ++i) {
          square[i] = values.Of(shape, first + i, head, group);
          if (rows) (*rows)[head].Put(first + i, group, square[i]);
        }
        if (!columns) continue;
        Transpose(square);
        for (int k = 0; k < shape.Count(group); ++k)
          (*columns)[head].Put(group * kLanes + k, first / kLanes, square[k]);
      }
}

// to[r] = factor[r] * (inputs [rows, depth of the panels] times the panels), for rows of a head in memory.
template <typename FactorOf>
void MultiplyTo(const Shape& shape, const Panels& panels, int rows, const float* const* inputs, FactorOf factor_of,
                float* const* to) {
  panels.ForEach([&](int group, int groups) {
    Lanes acc[kRows][kVectors] = {};
    panels.Multiply(group, rows, inputs, acc[0], kVectors);
    for (int r = 0; r < rows; ++r)
      for (int g = 0; g < groups; ++g)
        StoreSome(to[r] + (group + g) * kLanes, acc[r][g] * factor_of(r), shape.Count(group + g));
  });
}

// Softmax of some rows of a head, before dropout.
class Softmax {
 public:
  explicit Softmax(const Shape& shape)
      : scale(1.0f / std::sqrt(static_cast<float>(shape.depth))), shape_(shape), columns_(shape.Columns()),
        mask_(of_mask_.Room(columns_)), queries_(of_queries_.Room(kRows * shape.DepthGroups())),
        powers_(of_powers_.Room(kRows * columns_)) {
    std::fill_n(powers_, kRows * columns_, Lanes{});  // the last block may have fewer rows
  }

  void Take(const float* mask) {
    for (int column = 0; column < columns_; ++column) {
      const int place = column * kLanes, count = std::min(kLanes, shape_.length - place);
      mask_[column] = LoadSome(mask + place, count);
      for (int lane = count; lane < kLanes; ++lane) mask_[column][lane] = -HUGE_VALF;
    }
  }

  // The rows' powers, and 1 / the sum of each row's.
  void Make(const Biased& query, const Panels& keys, int head, int first, int rows, float* shares) {
    const float* queries[kRows];
    for (int r = 0; r < rows; ++r) {
      Lanes* scaled = queries_ + r * shape_.DepthGroups();
      for (int group = 0; group < shape_.DepthGroups(); ++group)
        scaled[group] = query.Of(shape_, first + r, head, group) * scale;
      std::copy_n(mask_, columns_, Powers(r));
      queries[r] = reinterpret_cast<float*>(scaled);
    }
    keys.ForEach([&](int group, int) { keys.Multiply(group, rows, queries, powers_ + group, columns_); });
    Raise(shares);
  }

  Lanes* Powers(int r) const { return powers_ + r * columns_; }

  const float scale;  // of the scores

 private:
  // All rows at once, for one alone would wait for itself.
  void Raise(float* shares) const {
    Lanes most[kRows], total[kRows] = {};
    UNROLLED for (int r = 0; r < kRows; ++r) most[r] = Powers(r)[0];
    for (int column = 1; column < columns_; ++column)
      UNROLLED for (int r = 0; r < kRows; ++r) {
        const Lanes score = Powers(r)[column];
        most[r] = score > most[r] ? score : most[r];
      }
    UNROLLED for (int r = 0; r < kRows; ++r) most[r] = Fill(MostOf(most[r]));
    for (int column = 0; column < columns_; ++column)
      UNROLLED for (int r = 0; r < kRows; ++r) {
        Lanes& power = Powers(r)[column];
        total[r] += power = Exp(power - most[r]);
      }
    UNROLLED for (int r = 0; r < kRows; ++r) shares[r] = 1.0f / SumOf(total[r]);
  }

  const Shape shape_;
  const int columns_;
  LanesArray of_mask_, of_queries_, of_powers_;
  Lanes *const mask_, *const queries_, *const powers_;
};

// What dropout multiplies a row of probabilities by, [S]; 1 where nothing is dropped.
class Factors {
 public:
  Factors(const Shape& shape, const Draws& draws)
      : draws_(draws), length_(shape.length), factors_(shape.Columns() * kLanes, 1.0f) {}

  bool Any() const { return draws_.draws; }

  // head: of all texts' heads.
  const float* Of(int64_t head, int row) {
    if (Any()) draws_.Factors((head * length_ + row) * length_, length_, factors_.data());
    return factors_.data();
  }

 private:
  const Draws draws_;
  const int length_;
  std::vector<float> factors_;
};

// Where some heads of one text stand.
struct Heads {
  Biased query, key, value;
  const float* mask;  // [S]
  int64_t first;      // of all texts' heads
  int count;
};

class Forward {
 public:
  Forward(const Shape& shape, const Draws& draws) : shape_(shape), softmax_(shape), factors_(shape, draws) {}

  static int64_t Best(const Shape& shape) { return shape.Best(2, 0); }

  void Run(const Heads& heads, float* context) {
    softmax_.Take(heads.mask);
    Pack(shape_, heads.key, heads.count, nullptr, &turned_keys_);
    Pack(shape_, heads.value, heads.count, &values_, nullptr);
    ByRows(shape_.length, [&](int first, int rows) {
      for (int head = 0; head < heads.count; ++head) Rows(heads, head, first, rows, context);
    });
  }

 private:
  void Rows(const Heads& heads, int head, int first, int rows, float* context) {
    float shares[kRows], *to[kRows];
    const float* powers[kRows];
    softmax_.Make(heads.query, turned_keys_[head], head, first, rows, shares);
    for (int r = 0; r < rows; ++r) {
      Lanes* row = softmax_.Powers(r);
      if (factors_.Any()) {
        const float* factors = factors_.Of(heads.first + head, first + r);
        for (int column = 0; column < shape_.Columns(); ++column) row[column] *= Load(factors + column * kLanes);
      }
      powers[r] = reinterpret_cast<float*>(row);
      to[r] = context + shape_.Place(first + r, head);
    }
    MultiplyTo(shape_, values_[head], rows, powers, [&](int r) { return shares[r]; }, to);
  }

  const Shape shape_;
  Softmax softmax_;
  Factors factors_;
  PerHead turned_keys_, values_;
};

// With P the probabilities, F the factors of dropout, G the gradient of the context, and * value by value:
//   of the scores  dS = P * (F * G V^T - sum over a row of P * F * G V^T)
//   of queries dS K / sqrt(D), of keys dS^T Q / sqrt(D), of values (P * F)^T G.
class Backward {
 public:
  Backward(const Shape& shape, const Draws& draws)
      : shape_(shape), columns_(shape.Columns()), softmax_(shape), factors_(shape, draws),
        of_dropped_(of_dropped_rows_.Room(kRows * columns_)), dropped_(of_squares_.Room(2 * Square())),
        of_scores_(dropped_ + Square()) {
    std::fill_n(dropped_, 2 * Square(), Lanes{});  // there are no rows where the sequence has ended
  }

  static int64_t Best(const Shape& shape) { return shape.Best(5, 2); }

  struct Gradients {
    float *query, *key, *value;  // [S, ...]
  };

  void Run(const Heads& heads, const float* of_context, const Gradients& to) {
    softmax_.Take(heads.mask);
    Pack(shape_, heads.query, heads.count, &queries_, nullptr);
    Pack(shape_, heads.key, heads.count, &keys_, &turned_keys_);
    Pack(shape_, heads.value, heads.count, nullptr, &turned_values_);
    Pack(shape_, {of_context, nullptr}, heads.count, &of_contexts_, nullptr);
    for (int head = 0; head < heads.count; ++head) {
      ByRows(shape_.length, [&](int first, int rows) { Rows(heads, head, first, rows, of_context, to.query); });
      Turn(dropped_);
      Turn(of_scores_);
      ByRows(shape_.length, [&](int first, int rows) {
        ToColumns(of_scores_, queries_[head], softmax_.scale, head, first, rows, to.key);
        ToColumns(dropped_, of_contexts_[head], 1.0f, head, first, rows, to.value);
      });
    }
  }

 private:
  size_t Square() const { return static_cast<size_t>(columns_) * kLanes * columns_; }

  // Some rows of the dropped probabilities and of the scores' gradient, and the gradient of their queries.
  void Rows(const Heads& heads, int head, int first, int rows, const float* of_context, float* of_query) {
    float shares[kRows], *to[kRows];
    const float *given[kRows], *of_scores[kRows];
    softmax_.Make(heads.query, turned_keys_[head], head, first, rows, shares);
    for (int r = 0; r < rows; ++r) given[r] = of_context + shape_.Place(first + r, head);
    std::fill_n(of_dropped_, kRows * columns_, Lanes{});
    const Panels& values = turned_values_[head];
    values.ForEach([&](int group, int) { values.Multiply(group, rows, given, of_dropped_ + group, columns_); });
    for (int r = 0; r < rows; ++r) {
      const size_t row = static_cast<size_t>(first + r) * columns_;
      ThroughSoftmax(softmax_.Powers(r), shares[r], factors_.Of(heads.first + head, first + r),
                     of_dropped_ + r * columns_, dropped_ + row, of_scores_ + row);
      of_scores[r] = reinterpret_cast<float*>(of_scores_ + row);
      to[r] = of_query + shape_.Place(first + r, head);
    }
    MultiplyTo(shape_, keys_[head], rows, of_scores, [&](int) { return softmax_.scale; }, to);
  }

  void ThroughSoftmax(const Lanes* powers, float share, const float* factors, Lanes* of_dropped, Lanes* dropped,
                      Lanes* of_scores) const {
    Lanes total{};
    for (int column = 0; column < columns_; ++column) {
      const Lanes factor = Load(factors + column * kLanes), probability = powers[column] * share;
      dropped[column] = probability * factor;
      total += of_dropped[column] * dropped[column];
      of_scores[column] = probability;
      of_dropped[column] *= factor;
    }
    const float mean = SumOf(total);
    for (int column = 0; column < columns_; ++column) of_scores[column] *= of_dropped[column] - mean;
  }

  // A square matrix becomes its transpose.
  void Turn(Lanes* matrix) const {
    for (int row = 0; row < columns_; ++row)
      for (int column = row; column < columns_; ++column) {
        Lanes one[kLanes], other[kLanes];
        Lanes *here = matrix + static_cast<size_t>(row) * kLanes * columns_ + column;
        Lanes *there = matrix + static_cast<size_t>(column) * kLanes * columns_ + row;
        for (int i = 0; i < kLanes; ++i) one[i] = here[i * columns_], other[i] = there[i * columns_];
        Transpose(one);
        Transpose(other);
        for (int i = 0; i < kLanes; ++i) here[i * columns_] = other[i], there[i * columns_] = one[i];
      }
  }

  // Some rows of a turned matrix times the panels.
  void ToColumns(const Lanes* turned, const Panels& panels, float factor, int head, int first, int rows, float* to) {
    const float* inputs[kRows];
    float* rows_of_head[kRows];
    for (int r = 0; r < rows; ++r) {
      inputs[r] = reinterpret_cast<const float*>(turned + static_cast<size_t>(first + r) * columns_);
      rows_of_head[r] = to + shape_.Place(first + r, head);
    }
    MultiplyTo(shape_, panels, rows, inputs, [&](int) { return factor; }, rows_of_head);
  }

  const Shape shape_;
  const int columns_;
  Softmax softmax_;
  Factors factors_;
  LanesArray of_dropped_rows_, of_squares_;
  Lanes *const of_dropped_, *const dropped_, *const of_scores_;  // [kRows, S], [S, S] twice
  PerHead queries_, keys_, turned_keys_, turned_values_, of_contexts_;
};

class OfAttention : public WithDraws {
 public:
  explicit OfAttention(OpKernelConstruction* context) : WithDraws(context) {
    OP_REQUIRES_OK(context, context->GetAttr("heads", &heads_));
  }

 protected:
  // The inputs that both ops have, in this order.
  enum { kQuery, kQueryBias, kKey, kKeyBias, kValue, kValueBias, kMask, kDraws };

  bool Fits(OpKernelContext* context) const {
    const Tensor &query = context->input(kQuery), &mask = context->input(kMask);
    if (query.dims() != 2 || query.dim_size(1) % heads_ || mask.dims() != 2 ||
        mask.NumElements() != query.dim_size(0))
      return false;
    for (int input = kQuery; input < kMask; input += 2)
      if (context->input(input).shape() != query.shape() || context->input(input + 1).NumElements() != query.dim_size(1))
        return false;
    return Fit(context->input(kDraws), mask.NumElements() * heads_ * mask.dim_size(1));
  }

  // run(worker, heads, where they begin) for some heads of a text at once; each thread has a worker.
  template <typename Worker, typename Run>
  void ForHeads(OpKernelContext* context, int products, Run run) const {
    const Tensor &query = context->input(kQuery), &mask = context->input(kMask);
    const int64_t width = query.dim_size(1), depth = width / heads_, length = mask.dim_size(1), heads = heads_;
    const Shape shape{static_cast<int>(length), static_cast<int>(depth), static_cast<int>(width)};
    const Draws draws = DrawsOf(context->input(kDraws));
    const auto rows = [=](int input, int64_t place, int64_t column) {
      return Biased{Floats(context->input(input)) + place, Floats(context->input(input + 1)) + column};
    };
    const float* masks = Floats(mask);
    ForRanges(context, mask.dim_size(0) * heads, products * length * length * depth / 32, [&](int64_t first, int64_t end) {
      Worker worker(shape, draws);
      for (int64_t next; first < end; first = next) {
        const int64_t text = first / heads, column = first % heads * depth, place = text * length * width + column;
        next = std::min({end, (text + 1) * heads, first + Worker::Best(shape)});
        run(&worker, Heads{rows(kQuery, place, column), rows(kKey, place, column), rows(kValue, place, column),
                           masks + text * length, first, static_cast<int>(next - first)}, place);
      }
    });
  }

  int heads_;
};

class BertAttention : public OfAttention {
 public:
  using OfAttention::OfAttention;

  void Compute(OpKernelContext* context) override {
    OP_REQUIRES(context, Fits(context), tensorflow::errors::InvalidArgument(
        "BertAttention needs query, key and value [B S, H], each with a bias [H], a mask [B, S], draws [B A S S] or [0], "
        "and heads that divide H"));
    Tensor* output;
    OP_REQUIRES_OK(context, context->allocate_output(0, context->input(kQuery).shape(), &output));
    if (!output->NumElements()) return;
    float* to = Floats(output);
    ForHeads<Forward>(context, 2, [=](Forward* worker, const Heads& heads, int64_t place) {
      worker->Run(heads, to + place);
    });
  }
};

class BertAttentionGrad : public OfAttention {
 public:
  using OfAttention::OfAttention;

  void Compute(OpKernelContext* context) override {
    const Tensor& of_context = context->input(kDraws + 1);
    OP_REQUIRES(context, Fits(context) && of_context.shape() == context->input(kQuery).shape(),
                tensorflow::errors::InvalidArgument("BertAttentionGrad: shapes differ"));
    float* to[3];
    for (int i = 0; i < 3; ++i) {
      Tensor* output;
      OP_REQUIRES_OK(context, context->allocate_output(i, of_context.shape(), &output));
      to[i] = Floats(output);
    }
    if (!of_context.NumElements()) return;
    const float* given = Floats(of_context);
    ForHeads<Backward>(context, 6, [=](Backward* worker, const Heads& heads, int64_t place) {
      worker->Run(heads, given + place, {to[0] + place, to[1] + place, to[2] + place});
    });
  }
};

// What both ops are given.
#define WITH_HEADS                 \
  Attr("heads: int >= 1")          \
      .Attr("least: int")          \
      .Attr("scale: float")        \
      .Input("query: float")       \
      .Input("query_bias: float")  \
      .Input("key: float")         \
      .Input("key_bias: float")    \
      .Input("value: float")       \
      .Input("value_bias: float")  \
      .Input("mask: float")        \
      .Input("draws: int16")

REGISTER_OP("BertAttention")
    .WITH_HEADS
    .Output("context: float")
    .SetShapeFn([](tensorflow::shape_inference::InferenceContext* context) { return LikeInput(context, 0); });

REGISTER_OP("BertAttentionGrad")
    .WITH_HEADS
    .Input("context_gradient: float")
    .Output("query_gradient: float")
    .Output("key_gradient: float")
    .Output("value_gradient: float")
    .SetShapeFn([](tensorflow::shape_inference::InferenceContext* context) { return LikeInput(context, 0); });

REGISTER_KERNEL_BUILDER(Name("BertAttention").Device(DEVICE_CPU), BertAttention);
REGISTER_KERNEL_BUILDER(Name("BertAttentionGrad").Device(DEVICE_CPU), BertAttentionGrad);

}  // namespace
