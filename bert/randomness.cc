// Draws for dropout, the same numbers as TensorFlow's stateless generator gives, by vectors and on all threads.
//
// Built by training/native.py.

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "training/ops.h"

namespace {

constexpr int kTogether = 32;               // groups of numbers that are made side by side
constexpr int kOfGroup = 4, kRounds = 10;   // Philox4x32-10
constexpr int kDraws = 2 * kOfGroup * kTogether;
constexpr int64_t kCostOfBlock = 150;       // of the order of a nanosecond

// Philox4x32-10 (Salmon et al. 2011, section 3.3), keyed as TensorFlow does it.
class Philox {
 public:
  explicit Philox(const int64_t* seed) {
    uint32_t words[kOfGroup][kTogether] = {};
    for (int i = 0; i < 2; ++i) {
      words[2 * i][0] = static_cast<uint32_t>(seed[i]);
      words[2 * i + 1][0] = static_cast<uint32_t>(static_cast<uint64_t>(seed[i]) >> 32);
    }
    Rounds(0x3ec8f720, 0x02461e29, words);
    for (int i = 0; i < kOfGroup; ++i) mixed_[i] = words[i][0];
  }

  // Numbers of the groups from `first` on, whole ones between the least and the largest int32, the largest left out.
  void Make(uint64_t first, uint32_t* to) const {
    uint32_t words[kOfGroup][kTogether];
    for (int i = 0; i < kTogether; ++i) {
      words[0][i] = static_cast<uint32_t>(first + i);
      words[1][i] = static_cast<uint32_t>((first + i) >> 32);
      words[2][i] = mixed_[2];
      words[3][i] = mixed_[3];
    }
    Rounds(mixed_[0], mixed_[1], words);
    for (int i = 0; i < kTogether; ++i)
      for (int j = 0; j < kOfGroup; ++j) {
        const uint32_t word = words[j][i];
        to[kOfGroup * i + j] = (word == 0xffffffffu ? 0 : word) + 0x80000000u;
      }
  }

 private:
  static void Rounds(uint32_t key, uint32_t other_key, uint32_t words[kOfGroup][kTogether]) {
    for (int round = 0; round < kRounds; ++round) {
      for (int i = 0; i < kTogether; ++i) {
        const uint64_t product = static_cast<uint64_t>(words[0][i]) * 0xD2511F53u;
        const uint64_t other = static_cast<uint64_t>(words[2][i]) * 0xCD9E8D57u;
        words[0][i] = static_cast<uint32_t>(other >> 32) ^ words[1][i] ^ key;
        words[1][i] = static_cast<uint32_t>(other);
        words[2][i] = static_cast<uint32_t>(product >> 32) ^ words[3][i] ^ other_key;
        words[3][i] = static_cast<uint32_t>(product);
      }
      key += 0x9E3779B9u;
      other_key += 0xBB67AE85u;
    }
  }

  uint32_t mixed_[kOfGroup];  // the key, and the upper half of the counter
};

class BertDraws : public OpKernel {
 public:
  explicit BertDraws(OpKernelConstruction* context) : OpKernel(context) {}

  void Compute(OpKernelContext* context) override {
    const Tensor &seed = context->input(0), &count = context->input(1);
    OP_REQUIRES(context, seed.NumElements() == 2 && count.NumElements() == 1 && count.flat<int32_t>()(0) >= 0,
                tensorflow::errors::InvalidArgument("BertDraws needs a seed [2], and a count of 0 or more"));
    const int64_t total = count.flat<int32_t>()(0);
    Tensor* output;
    OP_REQUIRES_OK(context, context->allocate_output(0, TensorShape({total}), &output));
    const Philox philox(reinterpret_cast<const int64_t*>(seed.flat<tensorflow::int64>().data()));
    int16_t* to = output->flat<int16_t>().data();
    ForRanges(context, (total + kDraws - 1) / kDraws, kCostOfBlock, [=](int64_t first, int64_t end) {
      for (int64_t block = first; block < end; ++block) {
        uint32_t made[kDraws / 2];
        philox.Make(block * kTogether, made);
        std::memcpy(to + block * kDraws, made, sizeof(int16_t) * std::min<int64_t>(kDraws, total - block * kDraws));
      }
    });
  }
};

REGISTER_OP("BertDraws")
    .Input("seed: int64")
    .Input("count: int32")
    .Output("draws: int16")
    .SetShapeFn([](tensorflow::shape_inference::InferenceContext* context) {
      context->set_output(0, context->UnknownShapeOfRank(1));
      return tensorflow::Status();
    });

REGISTER_KERNEL_BUILDER(Name("BertDraws").Device(DEVICE_CPU), BertDraws);

}  // namespace
