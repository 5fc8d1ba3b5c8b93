// Attention of all heads without dropout, forward, for CPUs: scores are made, normalised and used while they are in the
// cache.
//
// Built by training/native.py. Letters: B batch, S sequence, H width, A heads, D width of a head, M = B S.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "training/lanes.h"
#include "training/ops.h"
#include "training/products.h"

namespace {

constexpr int64_t kPacked = 1 << 18;  // floats of keys and values that are packed at once, to stay in the cache

// Where some heads of one text begin; a row begins `width` floats after the one before, a head D after the one before.
struct Heads {
  const float *query, *key, *value, *bias;  // [S, ...], [S]
  float* context;                           // [S, ...]
  int count;
};

class Attention {
 public:
  Attention(int length, int depth, int width)
      : length_(length), depth_(depth), width_(width), scale_(1.0f / std::sqrt(static_cast<float>(depth))),
        columns_(Groups(length)), groups_(Groups(depth)), bias_(of_bias_.Room(columns_)),
        queries_(of_queries_.Room(kRows * groups_)), powers_(of_powers_.Room(kRows * columns_)) {
    std::fill_n(powers_, kRows * columns_, Lanes{});  // the last block may have fewer rows
  }

  // So many heads are best packed at once.
  static int Best(int64_t length, int64_t depth) { return std::max<int64_t>(1, kPacked / (2 * length * depth)); }

  // All of a row is read before the next one: the other way, memory would be waited for.
  void Run(const Heads& heads) {
    for (int column = 0; column < columns_; ++column) {
      const int place = column * kLanes, count = std::min(kLanes, length_ - place);
      bias_[column] = LoadSome(heads.bias + place, count);
      for (int lane = count; lane < kLanes; ++lane) bias_[column][lane] = -HUGE_VALF;
    }
    Pack(heads);
    ByRows(length_, [&](int first, int rows) {
      for (int head = 0; head < heads.count; ++head) Rows(heads, head, first, rows);
    });
  }

 private:
  size_t Place(int row, int head) const { return static_cast<size_t>(row) * width_ + head * depth_; }

  int Count(int group) const { return std::min(kLanes, depth_ - group * kLanes); }

  void Pack(const Heads& heads) {
    keys_.resize(std::max<size_t>(keys_.size(), heads.count));
    values_.resize(keys_.size());
    for (int head = 0; head < heads.count; ++head) {
      keys_[head].Reserve(depth_, columns_);
      values_[head].Reserve(length_, groups_);
    }
    for (int first = 0; first < length_; first += kLanes)
      for (int head = 0; head < heads.count; ++head) PackSome(heads, head, first, std::min(kLanes, length_ - first));
  }

  // Keys are transposed, so that the scores of many come out side by side.
  void PackSome(const Heads& heads, int head, int first, int rows) {
    for (int group = 0; group < groups_; ++group) {
      Lanes square[kLanes] = {};
      for (int row = 0; row < rows; ++row) {
        const size_t place = Place(first + row, head) + group * kLanes;
        square[row] = LoadSome(heads.key + place, Count(group));
        values_[head].Put(first + row, group, LoadSome(heads.value + place, Count(group)));
      }
      Transpose(square);
      for (int k = 0; k < Count(group); ++k) keys_[head].Put(group * kLanes + k, first / kLanes, square[k]);
    }
  }

  // Some rows of one head.
  void Rows(const Heads& heads, int head, int first, int rows) {
    const float *queries[kRows], *powers[kRows];
    for (int r = 0; r < rows; ++r) {
      Lanes* query = queries_ + r * groups_;
      for (int group = 0; group < groups_; ++group)
        query[group] = LoadSome(heads.query + Place(first + r, head) + group * kLanes, Count(group)) * scale_;
      std::copy_n(bias_, columns_, powers_ + r * columns_);
      queries[r] = reinterpret_cast<float*>(query);
      powers[r] = reinterpret_cast<float*>(powers_ + r * columns_);
    }
    keys_[head].ForEach([&](int group, int) {
      keys_[head].Multiply(group, rows, queries, powers_ + group, columns_);
    });
    float shares[kRows];
    Raise(shares);
    values_[head].ForEach([&](int group, int groups) {
      Lanes acc[kRows][kVectors] = {};
      values_[head].Multiply(group, rows, powers, acc[0], kVectors);
      for (int r = 0; r < rows; ++r)
        for (int g = 0; g < groups; ++g)
          StoreSome(heads.context + Place(first + r, head) + (group + g) * kLanes, acc[r][g] * shares[r],
                    Count(group + g));
    });
  }

  // From scores to powers, and 1 / the sum of each row's; all rows at once, for one alone would wait for itself.
  void Raise(float* shares) const {
    Lanes most[kRows], total[kRows] = {};
    UNROLLED for (int r = 0; r < kRows; ++r) most[r] = powers_[r * columns_];
    for (int column = 1; column < columns_; ++column)
      UNROLLED for (int r = 0; r < kRows; ++r) {
        const Lanes score = powers_[r * columns_ + column];
        most[r] = score > most[r] ? score : most[r];
      }
    UNROLLED for (int r = 0; r < kRows; ++r) most[r] = Fill(MostOf(most[r]));
    for (int column = 0; column < columns_; ++column)
      UNROLLED for (int r = 0; r < kRows; ++r) {
        Lanes& power = powers_[r * columns_ + column];
        total[r] += power = Exp(power - most[r]);
      }
    UNROLLED for (int r = 0; r < kRows; ++r) shares[r] = 1.0f / SumOf(total[r]);
  }

  const int length_, depth_, width_;
  const float scale_;
  const int columns_, groups_;
  LanesArray of_bias_, of_queries_, of_powers_;
  Lanes *const bias_, *const queries_, *const powers_;
  std::vector<Panels> keys_, values_;
};

class BertAttention : public OpKernel {
 public:
  explicit BertAttention(OpKernelConstruction* context) : OpKernel(context) {
    OP_REQUIRES_OK(context, context->GetAttr("heads", &heads_));
  }

  void Compute(OpKernelContext* context) override {
    const Tensor &query = context->input(0), &key = context->input(1), &value = context->input(2);
    const Tensor& bias = context->input(3);
    OP_REQUIRES(context, query.dims() == 2 && key.shape() == query.shape() && value.shape() == query.shape() &&
                bias.dims() == 2 && bias.NumElements() == query.dim_size(0) && query.dim_size(1) % heads_ == 0,
                tensorflow::errors::InvalidArgument(
                    "BertAttention needs query, key and value [B S, H], bias [B, S], and heads that divide H"));
    Tensor* output;
    OP_REQUIRES_OK(context, context->allocate_output(0, query.shape(), &output));
    if (!output->NumElements()) return;
    const int64_t width = query.dim_size(1), depth = width / heads_, length = bias.dim_size(1), heads = heads_;
    const float *queries = Floats(query), *keys = Floats(key), *values = Floats(value), *added = Floats(bias);
    float* to = Floats(output);
    ForRanges(context, bias.dim_size(0) * heads, length * length * depth / 16, [=](int64_t first, int64_t end) {
      Attention attention(length, depth, width);
      for (int64_t next; first < end; first = next) {
        const int64_t text = first / heads, place = text * length * width + first % heads * depth;
        next = std::min({end, (text + 1) * heads, first + Attention::Best(length, depth)});
        attention.Run({queries + place, keys + place, values + place, added + text * length, to + place,
                       static_cast<int>(next - first)});
      }
    });
  }

 private:
  int heads_;
};

REGISTER_OP("BertAttention")
    .Attr("heads: int >= 1")
    .Input("query: float")
    .Input("key: float")
    .Input("value: float")
    .Input("bias: float")
    .Output("context: float")
    .SetShapeFn([](tensorflow::shape_inference::InferenceContext* context) { return LikeInput(context, 0); });

REGISTER_KERNEL_BUILDER(Name("BertAttention").Device(DEVICE_CPU), BertAttention);

}  // namespace
